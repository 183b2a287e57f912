"""Table of `leave_one_out`: novelty of the left-out task, false alarms and detection delays."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.datasets import CIFAR10_ORDER

FAR = {None: "CIFAR-10 in grey", "lite0": "MNIST"}
"""What is far from the tasks, by the network that they are learned over."""

HEAD = (
    "left out",
    "AUROC, left-out task",
    "AUROC, {far}",
    "called unknown: known / left out / {far}",
    "false alarms per 100,000: mixed / in bursts of one class",
    "images until suspected: alone, mean (largest)",
    "as half of the stream",
)

USUAL_IMAGES = 2000
"""To learn from, of each class, where a title says nothing."""

ALARMS = ("false_alarms_per_100000", "false_alarms_per_100000_in_bursts")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables in Markdown, one for each network and layout; empty without rows."""
    mine = [row for row in rows if row.get("benchmark") == "leave_one_out"]
    kinds = dict.fromkeys(map(_kind, mine))
    parts = []
    for over, backbone, images in kinds:
        title = "leave_one_out" + (f" over {over}, {backbone}" if over else "")
        title += f", {images:,} images a class" if over and images != USUAL_IMAGES else ""
        some = [row for row in mine if _kind(row) == (over, backbone, images)]
        parts.append(_table(title, FAR[over and over.split()[0]], some))
    return "\n\n".join(parts)


def _kind(row: Mapping[str, Any]) -> tuple[str | None, str | None, int]:
    """What a row is about: which network, if there is one, and what layout over it; and how many images a class has."""
    over = row.get("over")
    return over, row.get("backbone") if over else None, int(row.get("images", USUAL_IMAGES))


def _table(title: str, far: str, rows: Sequence[Mapping[str, Any]]) -> str:
    found = {(row["seed"], row["left_out"]): row for row in rows}
    lines = [f"| {' | '.join(HEAD).format(far=far)} |", "|" + "---|" * len(HEAD)]
    seeds = len({seed for seed, _ in found})
    for (seed, left), row in sorted(found.items()):
        unknown = " / ".join(f"{100 * row['unknown'][name]:.1f} %" for name in ("known", "near", "far"))
        name = f"{_classes(left, over=bool(row.get('over')))}" + (f", seed {seed}" if seeds > 1 else "")
        alarms = " / ".join(f"{sum(row[name].values()):g}" for name in ALARMS if name in row)
        cells = (f"{row['auroc_near']:.3f}", f"{row['auroc_far']:.3f}", unknown, alarms)
        delays = (_delay(row["delay_alone"]), _delay(row["delay_half"]))
        lines.append(f"| {' | '.join((name, *cells, *delays))} |")
    means = [statistics.fmean(row[name] for row in found.values()) for name in ("auroc_near", "auroc_far")]
    lines.append(f"| mean | {means[0]:.3f} | {means[1]:.3f} |" + " |" * (len(HEAD) - 3))
    return "\n".join([f"#### {title}", "", *lines])


def _classes(left: int, *, over: bool) -> str:
    names = CIFAR10_ORDER if over else [str(digit) for digit in range(10)]
    return f"{names[2 * left]} and {names[2 * left + 1]}"


def _delay(delay: Mapping[str, float]) -> str:
    return f"{delay['mean']:.0f} ({delay['largest']:.0f})"
