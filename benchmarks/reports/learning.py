"""Table of `learning`: processor time against a plain loop, and the phases that it goes into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = (
    "network",
    "images a class",
    "tasks",
    "Engram, CPU s",
    "plain loop, CPU s",
    "ratio",
    "to a fused one",
    "phases, s",
    "accuracy",
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown, empty without rows: of each model and number of images the newest commit's least."""
    rows = [row for row in rows if row.get("benchmark") == "learning"]
    if not rows:
        return ""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for key in dict.fromkeys(_key(row) for row in rows):
        mine = [row for row in rows if _key(row) == key]
        mine = [row for row in mine if row.get("commit") == mine[-1].get("commit")]
        ours, plain = (min((row[side] for row in mine), key=_seconds) for side in ("engram", "plain"))
        phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in ours["phases"].items())
        accuracy = " / ".join(f"{sum(side['accuracy']) / len(side['accuracy']):.4f}" for side in (ours, plain))
        fused = [row["plain_fused"] for row in mine if "plain_fused" in row]  # which earlier rows lack
        quick = f"{_seconds(ours) / min(map(_seconds, fused)):.2f}" if fused else "–"
        times = (f"{_seconds(ours):.1f}", f"{_seconds(plain):.1f}", f"{_seconds(ours) / _seconds(plain):.2f}")
        cells = (key[0], key[1], str(len(plain["cpu_seconds"])), *times, quick, phases, accuracy)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["#### learning", "", *lines])


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["definition"]["backbone"], str(row["images"])


def _seconds(side: Mapping[str, Any]) -> float:
    found: float = sum(side["cpu_seconds"])
    return found
