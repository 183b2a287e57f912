"""Table of `imbalance`: recall of good parts and of rare defects, learner by learner."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

HEAD = (
    "1,000 new images of each class",
    "recall of good parts, least of all seeds",
    "recall of defects, mean (least)",
    "balanced accuracy",
    "calibration error",
    "seeds",
)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown; empty without rows."""
    found: dict[tuple[int, int, str], dict[int, Mapping[str, Any]]] = {}
    for row in rows:
        if row.get("benchmark") == "imbalance":
            found.setdefault((row["good"], row["defects"], row["learner"]), {})[row["seed"]] = row
    if not found:
        return ""
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for (good, defects, learner), by_seed in found.items():
        runs = list(by_seed.values())
        large, small = ([run["recall"][name] for run in runs] for name in ("good", "defect"))
        balanced = [run["balanced_accuracy"] for run in runs]
        spread = f" ± {statistics.stdev(balanced):.3f}" if len(runs) > 1 else ""
        cells = (
            f"{learner}, {good} : {defects}",
            f"{min(large):.3f}",
            f"{statistics.fmean(small):.3f} ({min(small):.3f})",
            f"{statistics.fmean(balanced):.3f}{spread}",
            f"{statistics.fmean(run['calibration_error'] for run in runs):.3f}",
            str(len(runs)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["#### imbalance", "", *lines])
