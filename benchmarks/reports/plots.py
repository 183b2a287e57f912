"""Plots of results: accuracy, forgetting and free capacity by tasks learned, and task matrices.

    python -m benchmarks plots results.jsonl [...] --out DIR

For each benchmark: `<benchmark>-<scale>-accuracy.png`, `-forgetting.png` and `-capacity.png` with a line for each
method, and for each method `-<method>-matrix.png` and, if tasks are recognised, `-<method>-routing.png`. All are
means over the seeds. Needs matplotlib (the extra `benchmarks`).
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from benchmarks.harness.metrics import forgetting
from benchmarks.harness.results import rows_of
from benchmarks.reports.tables import Group, grouped

Curve = Callable[[dict[str, Any]], list[float] | None]
"""A row's values by the number of tasks learned, from 1 on; None if it lacks them."""

_PIXELS_PER_INCH = 130


def learned_so_far(row: dict[str, Any]) -> list[float] | None:
    """Mean accuracy without an id on all tasks learned so far, in per cent."""
    matrix: Any = row.get("matrix_without_id")
    return None if _unfinished(matrix) else [float(np.mean(scores)) for scores in matrix]


def forgotten(row: dict[str, Any]) -> list[float] | None:
    """Forgetting without an id after each task, in points."""
    matrix: Any = row.get("matrix_without_id")
    return None if _unfinished(matrix) else [forgetting(matrix[: count + 1]) for count in range(len(matrix))]


def free(row: dict[str, Any]) -> list[float] | None:
    """Share of units that no task owns, in per cent."""
    shares = row.get("free")
    return None if not shares or None in shares else [float(share) for share in shares]


CURVES: dict[str, tuple[Curve, str]] = {
    "accuracy": (learned_so_far, "accuracy without id, all tasks so far (%)"),
    "forgetting": (forgotten, "forgetting without id (points)"),
    "capacity": (free, "units that no task owns (%)"),
}


def draw(groups: Sequence[Group], out: Path) -> list[Path]:
    """Draw all plots into a folder; returns their paths."""
    pyplot = _pyplot()
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for benchmark, scale in dict.fromkeys((group.benchmark, group.scale) for group in groups):
        same = [group for group in groups if (group.benchmark, group.scale) == (benchmark, scale)]
        for name, (curve, label) in CURVES.items():
            lines = {
                group.title: line for group in same if (line := _mean([curve(row) for row in group.rows])) is not None
            }
            if lines:
                paths.append(out / f"{benchmark}-{scale}-{name}.png")
                _lines(pyplot, lines, label, f"{benchmark}, {scale}", paths[-1])
        for group in same:
            title, file = f"{benchmark}, {scale}: {group.title}", f"{benchmark}-{scale}-{_file_name(group.title)}"
            matrix = _mean([_square(row.get("matrix_with_id")) for row in group.rows])
            if matrix is not None:
                paths.append(out / f"{file}-matrix.png")
                _squares(pyplot, matrix, f"{title}, accuracy with id (%)", ("task", "tasks learned"), paths[-1])
            routing = _mean([_shares(row.get("routing")) for row in group.rows])
            if routing is not None:
                paths.append(out / f"{file}-routing.png")
                _squares(pyplot, routing, f"{title}, recognised as (%)", ("recognised task", "task"), paths[-1])
    return paths


def _pyplot() -> Any:
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
    except ImportError:
        sys.exit("the plots need matplotlib: pip install 'engram-vision[benchmarks]'")
    matplotlib.use("agg")
    return importlib.import_module("matplotlib.pyplot")


def _unfinished(matrix: Any) -> bool:
    """Whether a matrix lacks rows, like that of joint training, which has the last one only."""
    return not matrix or len(matrix) != len(matrix[-1])


def _square(matrix: Any) -> list[list[float]] | None:
    if _unfinished(matrix):
        return None
    return [[*row, *[float("nan")] * (len(matrix) - len(row))] for row in matrix]


def _shares(routing: list[list[int]] | None) -> list[list[float]] | None:
    return None if routing is None else [[100 * count / sum(row) for count in row] for row in routing]


def _mean(values: Sequence[Any]) -> Any:
    """Mean of lists or tables of equal size; None if one is missing."""
    return None if any(value is None for value in values) else np.mean(np.array(values, dtype=float), 0)


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", title.lower()).strip("-")


def _lines(pyplot: Any, lines: dict[str, Any], label: str, title: str, path: Path) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 4 + 0.2 * len(lines)), layout="constrained")
    for name, values in lines.items():
        axes.plot(range(1, len(values) + 1), values, marker="o", label=name)
    axes.set(xlabel="tasks learned", ylabel=label, title=title)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small")
    figure.savefig(path, dpi=_PIXELS_PER_INCH)
    pyplot.close(figure)


def _squares(pyplot: Any, values: Any, title: str, axes_names: tuple[str, str], path: Path) -> None:
    side = max(4.0, 0.6 * len(values) + 1)
    figure, axes = pyplot.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(values, vmin=0, vmax=100, cmap="viridis")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > 60 else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", color=colour, fontsize=8)
    ticks = range(len(values))
    axes.set(title=fill(title, round(8 * side)), xlabel=axes_names[0], ylabel=axes_names[1], xticks=ticks, yticks=ticks)
    axes.set_yticklabels([str(tick + 1 if axes_names[1] == "tasks learned" else tick) for tick in ticks])
    figure.savefig(path, dpi=_PIXELS_PER_INCH)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks plots", description="Pictures of results")
    parser.add_argument("files", type=Path, nargs="+", help="files of results")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    args = parser.parse_args(arguments)
    for path in draw(grouped(row for file in args.files for row in rows_of(file)), args.out):
        print(path)
