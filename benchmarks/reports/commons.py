"""Table of `commons`: accuracy of a ridge over the commons against milliseconds an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown, empty without rows; of several rows of one setting and split, the last."""
    last = {(row["setting"], row["split"]): row for row in rows if row.get("benchmark") == "commons"}
    if not last:
        return ""
    head = [
        "data",
        "commons",
        "features",
        "without id, held out",
        "test",
        "with id, held out",
        "test",
        "ms, batch 1",
        "16",
        "32",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for setting in dict.fromkeys(setting for setting, _ in last):
        splits = [last.get((setting, split)) for split in ("held out", "test")]
        row = next(row for row in splits if row is not None)
        cells = [row["data"], setting, str(row["features"])]
        for name in ("without_id", "with_id"):
            cells += [f"{one[name]:.1f}" if one else "–" for one in splits]
        fastest = (min(one["milliseconds"][size] for one in splits if one) for size in ("1", "16", "32"))
        lines.append("| " + " | ".join([*cells, *(f"{number:.2f}" for number in fastest)]) + " |")
    return "\n".join(["#### commons", "", *lines])
