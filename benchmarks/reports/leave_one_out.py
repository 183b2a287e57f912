"""Table of `leave_one_out`: novelty of the left-out task, false alarms and detection delays."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = (
    "left out",
    "AUROC, left-out task",
    "AUROC, CIFAR-10 in grey",
    "called unknown: known / left out / CIFAR-10",
    "false alarms per 100,000: mixed / in bursts of one class",
    "images until suspected: alone, mean (largest)",
    "as half of the stream",
)

ALARMS = ("false_alarms_per_100000", "false_alarms_per_100000_in_bursts")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown; empty without rows."""
    found = {(row["seed"], row["left_out"]): row for row in rows if row.get("benchmark") == "leave_one_out"}
    if not found:
        return ""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    seeds = len({seed for seed, _ in found})
    for (seed, left), row in sorted(found.items()):
        unknown = " / ".join(f"{100 * row['unknown'][name]:.1f} %" for name in ("known", "near", "far"))
        name = f"{2 * left} and {2 * left + 1}" + (f", seed {seed}" if seeds > 1 else "")
        alarms = " / ".join(f"{sum(row[name].values()):g}" for name in ALARMS if name in row)
        cells = (f"{row['auroc_near']:.3f}", f"{row['auroc_far']:.3f}", unknown, alarms)
        delays = (_delay(row["delay_alone"]), _delay(row["delay_half"]))
        lines.append(f"| {' | '.join((name, *cells, *delays))} |")
    means = [statistics.fmean(row[name] for row in found.values()) for name in ("auroc_near", "auroc_far")]
    lines.append(f"| mean | {means[0]:.3f} | {means[1]:.3f} |" + " |" * (len(HEAD) - 3))
    return "\n".join(["#### leave_one_out", "", *lines])


def _delay(delay: Mapping[str, float]) -> str:
    return f"{delay['mean']:.0f} ({delay['largest']:.0f})"
