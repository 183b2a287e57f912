"""Tests of the table of drills."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.results import rows_of
from benchmarks.reports import drills
from benchmarks.reports.tables import RESULTS

WHERE = {"commit": "abc1234", "command": "python -m benchmarks schema --examples 9 --out rows.jsonl"}


def schema(cases: int, **failures: int) -> dict[str, Any]:
    return {"drill": "schema", "cases": cases, "operations": 21, "failures": failures, **WHERE}


def fuzz(reader: str, *crashes: str, status: int = 0) -> dict[str, Any]:
    figures = {"seconds": 600, "inputs": 1000, "growth_kib": 4, "replayed": 50}
    return {"drill": "fuzz", "reader": reader, "crashes_hangs": crashes, "status": status, **figures, **WHERE}


def cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in drills.table(rows).splitlines()[4:]]


def test_without_drills_there_is_no_table() -> None:
    assert drills.table([{"benchmark": "split_mnist"}]) == ""


def test_the_last_row_of_a_drill_counts_with_its_faults() -> None:
    (only,) = cells([schema(10), schema(2000, ST101=2, ST103=1)])
    assert only[0] == "schema"
    assert "2,000 made-up requests" in only[1]
    assert only[3:] == ["3", "`python -m benchmarks schema --examples 9`", "abc1234"]


def test_each_reader_has_a_line_and_a_process_that_failed_is_a_fault() -> None:
    found = {line[1].split()[1]: line[3] for line in cells([fuzz("image"), fuzz("archive", "crash-1", status=1)])}
    assert found == {"image": "0", "archive": "2"}


def test_every_drill_that_is_kept_has_its_line() -> None:
    rows = [row for path in RESULTS.glob("drill_*.jsonl") for row in rows_of(path)]
    kept = {row["drill"] for row in rows}
    assert {line[0] for line in cells(rows)} == kept & drills.DRILLS.keys()
    assert kept >= {"kills", "redis_gone", "saturation", "schema", "fuzz"}
