"""Tables and picture of `growth`: costs and quality of answers and of learning, by number of tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness.curves import Curve, draw

Row = Mapping[str, Any]

MB = 1e6
DEFAULT = ("2", "all")
"""The contenders that the picture shows: the first of these that a row has."""

ANSWERS = (
    "tasks",
    "contenders",
    "ms: stage one",
    "stage two",
    "32 of all tasks",
    "against one task",
    "32 of the newest",
    "worst 32",
    "1 image",
    "one contender, %",
    "engrams run",
    "no id, %",
    "with id, %",
    "task right, %",
    "calibration error",
)
LEARNING = (
    "tasks",
    "learned in, s",
    "processor, s",
    "of it loading / learning / verifying / publishing",
    "read, MB",
    "new, MB",
    "peak memory, MB",
    "against the 2nd: s / processor s / read / new / memory",
    "requests/s",
    "against one task",
    "p50 / p99, ms",
)


def grown(rows: Iterable[Row]) -> dict[str, dict[int, Row]]:
    """The rows of `growth` by model and number of tasks; of several with the same, the last."""
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.get("benchmark") == "growth":
            found.setdefault(title(row), {})[row["tasks"]] = row
    return {name: dict(sorted(by_tasks.items())) for name, by_tasks in found.items()}


def title(row: Row) -> str:
    """What was measured, in words."""
    width = "" if row["width"] == 1 else f" at {100 * row['width']:.4g} % width"
    changes = [f"recipe {row['recipe']}", f"{row['images']} images a task", *row["overrides"]]
    if row["seed"]:
        changes.append(f"seed {row['seed']}")
    return f"{row['backbone']}{width} on {row['data']} ({', '.join(changes)})"


def table(rows: Iterable[Row]) -> str:
    """The tables in Markdown, two for each model; empty without rows."""
    made = []
    for name, by_tasks in grown(rows).items():
        answers = [line for row in by_tasks.values() for line in _answers(row)]
        learning = [_learning(row, by_tasks.get(2)) for row in by_tasks.values()]
        made += [f"{name}:", *([_markdown(ANSWERS, answers)] if answers else []), _markdown(LEARNING, learning)]
    return "\n\n".join(["#### growth", *made]) if made else ""


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = "|" + "---|" * len(head)
    return "\n".join([_line(head), rule, *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _answers(row: Row) -> list[tuple[str, ...]]:
    if "milliseconds" not in row:
        return []
    lines: list[tuple[str, ...]] = []
    for contenders in row["milliseconds"]["by_contenders"]:
        ms, quality = _times(row, contenders), row["quality"]["by_contenders"][contenders]
        lines.append(
            (
                str(row["tasks"]),
                contenders,
                _number(ms["stage_one"], 1),
                _number(ms["stage_two"], 1),
                _number(ms["mixed"], 1),
                _number(ms["mixed"] / ms["one_task"], 2),
                _number(ms["newest"], 1),
                _number(ms["worst"], 1),
                _number(ms["single"], 1),
                _number(quality["one_contender"], 0),
                _number(quality["engrams_run"], 2),
                _number(quality["without_id"], 2),
                _number(row["quality"]["with_id"], 2),
                _number(quality["recognised"], 2),
                _number(quality["calibration_error"], 3),
            )
        )
    return lines


def _times(row: Row, contenders: str) -> Mapping[str, Any]:
    """Milliseconds by what was asked: processor time, where it was measured."""
    ms = row["milliseconds"]["by_contenders"][contenders]
    times: Mapping[str, Any] = ms.get("processor") or ms
    return times


def _learning(row: Row, second: Row | None) -> tuple[str, ...]:
    learned, http = row["learning"], row.get("http") or {}
    phases = learned["phases"]
    edges = ("loading", "verifying", "publishing")
    learning = sum(seconds for phase, seconds in phases.items() if phase not in edges)
    parts = (phases.get("loading"), learning, phases.get("verifying"), phases.get("publishing"))
    cells = [str(row["tasks"]), _number(learned["seconds"], 1), _number(learned["cpu_seconds"], 1)]
    cells += [" / ".join(_number(part, 1) for part in parts)]
    cells += [_number(_read(row) / MB, 1), _number(learned["new_bytes"] / MB, 1)]
    cells += [_number(learned["peak_bytes"] / MB, 0), _ratios(row, second)]
    rate = http.get("rate")
    cells += [_number(rate, 0), _number(rate and rate / http["rate_one_task"], 2)]
    return (*cells, f"{_number(http.get('p50'), 0)} / {_number(http.get('p99'), 0)}")


def _read(row: Row) -> int:
    """Bytes read from the store without the uploaded images."""
    return sum(count for folder, count in row["learning"]["bytes_read"].items() if folder != "data")


def _ratios(row: Row, second: Row | None) -> str:
    """Seconds, processor seconds, bytes read, new bytes and memory, as multiples of those of the second task."""
    if second is None or row["tasks"] < 2:
        return _number(None, 0)
    of: tuple[Callable[[Row], float | None], ...] = (
        lambda one: one["learning"]["seconds"],
        lambda one: one["learning"]["cpu_seconds"],
        _read,
        lambda one: one["learning"]["new_bytes"],
        lambda one: one["learning"]["peak_bytes"],
    )
    pairs = [(figure(row), figure(second)) for figure in of]
    return " / ".join(_number(None if now is None or then is None else now / then, 2) for now, then in pairs)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


PANELS: Mapping[str, Callable[[Row], float | None]] = {
    "32 images of all tasks, ms": lambda row: _of_default(row, "mixed"),
    "learning one task, s": lambda row: row["learning"]["seconds"],
    "read by the worker, MB": lambda row: _read(row) / MB,
    "new bytes of a version, MB": lambda row: row["learning"]["new_bytes"] / MB,
    "peak memory of the worker, MB": lambda row: row["learning"]["peak_bytes"] / MB,
    "requests a second": lambda row: (row.get("http") or {}).get("rate"),
}
"""What the picture shows over the number of tasks; None where it was not measured."""


def _of_default(row: Row, figure: str) -> float | None:
    by_contenders = row.get("milliseconds", {}).get("by_contenders", {})
    chosen = next((number for number in (*DEFAULT, *by_contenders) if number in by_contenders), None)
    return None if chosen is None else float(_times(row, chosen)[figure])


def picture(rows: Iterable[Row], path: Path) -> None:
    """Write an SVG with one panel for each of `PANELS`, and a curve for each model."""
    models = grown(rows)
    panels: dict[str, dict[str, Curve]] = {}
    for name, figure in PANELS.items():
        curves: dict[str, Curve] = {}
        for model, by_tasks in models.items():
            points = [(count, value) for count, row in by_tasks.items() if (value := figure(row)) is not None]
            if points:
                curves[model] = ([float(count) for count, _ in points], [value for _, value in points])
        if curves:
            panels[name] = curves
    if panels:
        draw(panels, "tasks", path)
