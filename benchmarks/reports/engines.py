"""Tables of `engines`: milliseconds of the parts of an answer, and what a whole one would take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]

ENGINES = ("folded", "inductor", "openvino", "onnxruntime")
COLUMNS = ("today", *ENGINES)
TODAY, WHOLE = "today", "whole"
_ABSENT = "–"
_DEPENDS = " (rows)"
"""Behind what depends on an image's place or neighbours."""


def cell(part: Row, engine: str) -> str:
    """Milliseconds of a part by an engine."""
    if engine not in part["ms"]:
        return _ABSENT
    return f"{part['ms'][engine]:.2f}" + ("" if part["rows_alike"][engine] else _DEPENDS)


def gain(row: Row, engine: str) -> float:
    """How many times as many whole answers there would be, had an engine all parts that it computes faster."""
    before = row["parts"][WHOLE]["ms"][TODAY]
    saved = 0.0
    for name, part in row["parts"].items():
        if name != WHOLE and engine in part["ms"]:
            saved += max(0.0, part["ms"][TODAY] - part["ms"][engine])
    return float(before / max(before - saved, 1e-6))


def lines(row: Row) -> list[list[str]]:
    """A line for each part of a row, and one for whole answers."""
    head = [row["network"], str(row["images"]), str(row["threads"])]
    found = [
        [*head, name, *(cell(part, engine) for engine in COLUMNS)]
        for name, part in row["parts"].items()
        if name != WHOLE
    ]
    gains = [f"{gain(row, engine):.2f} x" if _computed(row, engine) else _ABSENT for engine in ENGINES]
    return [*found, [*head, WHOLE, f"{row['parts'][WHOLE]['ms'][TODAY]:.2f}", *gains]]


def _computed(row: Row, engine: str) -> bool:
    return any(engine in part["ms"] for part in row["parts"].values())


def terminal_table(row: Row) -> Table:
    """A terminal table of one row of results."""
    title = f"{row['network']}, {row['images']} images, {row['threads']} threads: milliseconds"
    found = Table("part", *COLUMNS, title=title, title_justify="left")
    for line in lines(row):
        found.add_row(*line[3:])
    for name, part in row["parts"].items():
        for engine, why in part.get("failed", {}).items():
            found.add_row(f"{name}: {engine}", why)
    return found


def table(rows: Sequence[Row]) -> str:
    """The table in Markdown, empty without rows; of several rows that measured the same, the last."""
    mine = [row for row in rows if row.get("benchmark") == "engines"]
    last = {(row["network"], row["threads"], row["images"]): row for row in mine}
    if not last:
        return ""
    head = ("network", "images", "threads", "part", *COLUMNS)
    made = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    made += ["| " + " | ".join(line) + " |" for row in last.values() for line in lines(row)]
    return "\n".join(["#### engines", "", *made])
