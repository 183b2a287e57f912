"""Tables of results, generated from results files and published figures.

    python -m benchmarks tables [FILE.jsonl ...] [--write README.md]

Without files it reads `benchmarks/results/`. `--write` inserts the tables between the two marks in a file; otherwise
they are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.harness.datasets import SEQUENCES
from benchmarks.harness.presets import BASELINES, METHODS
from benchmarks.harness.results import rows_of
from benchmarks.reports import (
    claims,
    commons,
    drills,
    engines,
    growth,
    imbalance,
    learning,
    leave_one_out,
    pretrained,
    serving,
    strangers,
)
from benchmarks.reports.published import PUBLISHED
from engram import Definition

BEGIN, END = "<!-- results: python -m benchmarks tables --write -->", "<!-- end of results -->"
RESULTS = Path(__file__).parents[1] / "results"

COLUMNS = ("with id", "recognised", "without id", "forgetting", "seconds", "passes", "free", "MB", "seeds")
_ABSENT = "–"


def _short(override: str) -> str:
    """An override as a title says it: of a list of commons what each is."""
    name, _, value = override.partition("=")
    if name != "commons" or not value.startswith("["):
        return override
    return f"commons={' + '.join(map(_commons, json.loads(value)))}"


def _commons(part: Mapping[str, Any]) -> str:
    if part["kind"] != "pretrained":
        return str(part["kind"])
    return f"{part['backbone']} at {part['size']}" + (" together" if part.get("together") else "")


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed; of several runs of one seed, the last."""

    benchmark: str
    scale: str
    method: str
    interface: str
    overrides: tuple[str, ...]
    recipe: int
    """Of the models; those before the newest are told from them."""
    rows: tuple[dict[str, Any], ...]

    @property
    def title(self) -> str:
        """The method, with the interface and the overrides that differ from the defaults."""
        older = self.method in METHODS and self.recipe < Definition.model_fields["recipe"].default
        changes = [*(["over HTTP"] if self.interface == "http" else []), *map(_short, self.overrides)]
        changes += [f"recipe {self.recipe}"] if older else []
        return self.method + (f" ({', '.join(changes)})" if changes else "")

    def cells(self) -> tuple[str, ...]:
        """One cell for each of `COLUMNS`."""
        return (
            self._mean("with_id"),
            self._mean("recognised"),
            self._mean("without_id"),
            self._mean("forgetting"),
            self._mean("seconds", digits=0),
            self._mean("passes", digits=1),
            self._spread([row["free"][-1] if row.get("free") else None for row in self.rows], 0),
            self._spread([row["bytes"]["all"] / 1e6 if row.get("bytes") else None for row in self.rows], 1),
            str(len(self.rows)),
        )

    def _mean(self, name: str, digits: int = 2) -> str:
        return self._spread([row.get(name) for row in self.rows], digits)

    @staticmethod
    def _spread(values: Sequence[float | None], digits: int) -> str:
        """Mean and, if the values differ, the standard deviation; a dash if a value is missing."""
        numbers = [value for value in values if value is not None]
        if len(numbers) < len(values):
            return _ABSENT
        mean = f"{statistics.fmean(numbers):.{digits}f}"
        return f"{mean} ± {statistics.stdev(numbers):.{digits}f}" if len(set(numbers)) > 1 else mean


def grouped(rows: Iterable[dict[str, Any]]) -> list[Group]:
    """The runs as groups, in the order of benchmarks and methods."""
    found: dict[tuple[str, str, str, str, tuple[str, ...], int], dict[int, dict[str, Any]]] = {}
    for row in rows:
        if row.get("benchmark") not in SEQUENCES:  # drills have none
            continue
        overrides = tuple(sorted(row.get("overrides", ())))
        scale, method = row.get("scale", "small"), row.get("method", "eidetic")
        recipe = int(row.get("definition", {}).get("recipe", 1))
        key = (row["benchmark"], scale, method, row["interface"], overrides, recipe)
        found.setdefault(key, {})[row["seed"]] = row
    groups = [Group(*key, tuple(seeds[seed] for seed in sorted(seeds))) for key, seeds in found.items()]
    benchmarks, methods = list(SEQUENCES), [*METHODS, *BASELINES]

    def place(group: Group) -> tuple[object, ...]:
        where = benchmarks.index(group.benchmark), group.scale != "small", methods.index(group.method)
        return (*where, group.interface != "python", -group.recipe, group.overrides)

    return sorted(groups, key=place)


def terminal_table(groups: Sequence[Group]) -> Table:
    """A terminal table of one benchmark with a column for each group."""
    heads = [f"{group.title}, {group.scale}" for group in groups]
    table = Table("", *heads, title=", ".join(dict.fromkeys(group.benchmark for group in groups)))
    for column, *cells in zip(COLUMNS, *(group.cells() for group in groups), strict=True):
        table.add_row(column, *cells)
    return table


def markdown(groups: Sequence[Group]) -> str:
    """A Markdown table for each benchmark: measured figures, then published ones."""
    parts = []
    for benchmark in SEQUENCES:
        lines = [
            f"| {group.title}, {group.scale} | " + " | ".join(group.cells()) + " |"
            for group in groups
            if group.benchmark == benchmark
        ]
        for paper in PUBLISHED:
            if lines and paper.benchmark == benchmark:
                known = {"with id": paper.with_id, "without id": paper.without_id, "forgetting": paper.forgetting}
                cells = " | ".join(known.get(column) or "" for column in COLUMNS)
                source = paper.source + (f"; {paper.note}" if paper.note else "")
                lines.append(f"| *{paper.method}, published: {source}* | {cells} |")
        if lines:
            head = ["method", *COLUMNS]
            rule = "|" + "---|" * len(head)
            parts.append("\n".join([f"#### {benchmark}", "", "| " + " | ".join(head) + " |", rule, *lines]))
    return "\n\n".join(parts)


def page(rows: Sequence[dict[str, Any]]) -> str:
    """All tables: claims, benchmarks, speed and costs, studies, drills."""
    about = (serving, engines, growth, learning, pretrained, leave_one_out, strangers, imbalance, commons)
    studies = [part.table(rows) for part in about]
    parts = (claims.table(rows), markdown(grouped(rows)), *studies, drills.table(rows))
    return "\n\n".join(part for part in parts if part)


def insert_table(text: str, table: str) -> str:
    """`text` with `table` between its marks.

    Raises
    ------
    ValueError
        The text has no marks.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the file has no marks: it needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks tables", description="The table of results")
    parser.add_argument("files", type=Path, nargs="*", help="files of results; by default all in benchmarks/results")
    parser.add_argument("--write", type=Path, help="file to put the table in, between its marks")
    args = parser.parse_args(arguments)
    files = args.files or sorted(RESULTS.glob("*.jsonl"))
    table = page([row for path in files for row in rows_of(path)])
    if args.write is None:
        print(table)
        return
    try:
        args.write.write_text(insert_table(args.write.read_text(encoding="utf-8"), table), encoding="utf-8")
    except ValueError as error:
        sys.exit(f"{args.write}: {error}")
