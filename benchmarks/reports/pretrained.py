"""Tables of `photographs` and `small_task`: which backbone, and what a small task over one costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PHOTOGRAPHS = ("model", "learned in, s", "processor s", "peak memory, MB", "% of new photographs right", "s an answer")

SMALL = (
    "images",
    "published in, s: first / second task",
    "processor s",
    "% right, task given",
    "ms an image: bare network / commons / answer",
    "answer against bare",
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables in Markdown, empty without rows; of several rows of one setting, the last."""
    return "\n\n".join(part for part in (photographs(rows), small_task(rows)) if part)


def photographs(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each model that learned from photographs."""
    last = {row["setting"]: row for row in rows if row.get("benchmark") == "photographs"}
    lines = [
        (
            setting,
            f"{row['seconds']:.0f}",
            f"{row['cpu_seconds']:.0f}",
            f"{row['peak_bytes'] / 1e6:.0f}",
            f"{row['accuracy']:.1f}",
            f"{row['seconds_an_answer']:.3f}",
        )
        for setting, row in last.items()
    ]
    return _markdown("photographs", PHOTOGRAPHS, lines)


def small_task(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last run."""
    last = [row for row in rows if row.get("benchmark") == "small_task"][-1:]
    lines = [
        (
            str(row["images"]),
            *(" / ".join(f"{value:.1f}" for value in row["learned"][name]) for name in ("seconds", "cpu_seconds")),
            " / ".join(f"{value:.1f}" for value in row["learned"]["accuracy"]),
            " / ".join(f"{row['milliseconds'][name]:.1f}" for name in ("bare", "commons", "answer")),
            f"{row['ratio']:.2f}",
        )
        for row in last
    ]
    return _markdown("small_task", SMALL, lines)


def _markdown(title: str, head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    if not lines:
        return ""
    rows = [f"| {' | '.join(line)} |" for line in (head, *lines)]
    return "\n".join([f"#### {title}", "", rows[0], "|" + "---|" * len(head), *rows[1:]])
