"""Table of `strangers`: wrong answers about known and unknown images, by how many images a task has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in Markdown, empty without rows: mean shares, in per cent, of strangers called known and known images
    called unknown."""
    rows = [row for row in rows if row.get("benchmark") == "strangers"]
    if not rows:
        return ""
    kinds = list(rows[0]["answers"])
    head = ["data", "images a class", "recipe", *(f"{k}: {'no' if k == kinds[0] else 'yes'} / unsaid" for k in kinds)]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for key in dict.fromkeys((row["data"], row["images"], row["recipe"]) for row in rows):
        mine = [row["answers"] for row in rows if (row["data"], row["images"], row["recipe"]) == key]
        cells = [str(part) for part in key]
        for kind in kinds:
            wrong, unsaid = (
                100 * sum(answers[kind][said] for answers in mine) / len(mine)
                for said in ("no" if kind == kinds[0] else "yes", "unsaid")
            )
            cells.append(f"{wrong:.1f} / {unsaid:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(["#### strangers", "", *lines])
