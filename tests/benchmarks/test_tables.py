"""Tests of result tables and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.datasets import SEQUENCES
from benchmarks.harness.presets import BASELINES, METHODS
from benchmarks.reports.plots import CURVES, draw
from benchmarks.reports.published import PUBLISHED
from benchmarks.reports.tables import BEGIN, COLUMNS, END, RESULTS, grouped, insert_table, main, markdown, page


def row(seed: int = 0, **changes: Any) -> dict[str, Any]:
    fields = {
        "benchmark": "split_mnist",
        "method": "eidetic",
        "scale": "small",
        "interface": "python",
        "seed": seed,
        "overrides": [],
        "definition": {"recipe": 3},
        "with_id": 99.0 + seed,
        "recognised": 97.0,
        "without_id": 96.0,
        "forgetting": 0.0,
        "seconds": 10.4,
        "passes": 1.0,
        "free": [80.0, 60.0],
        "bytes": {"all": 2_500_000},
        "matrix_with_id": [[100.0], [100.0, 98.0]],
        "matrix_without_id": [[100.0], [90.0, 98.0]],
        "routing": [[90, 10], [0, 100]],
    }
    return {**fields, **changes}


def test_seeds_are_put_together_and_the_last_run_of_a_seed_counts() -> None:
    (group,) = grouped([row(0, with_id=10.0), row(1), row(0)])
    assert dict(zip(COLUMNS, group.cells(), strict=True)) == {
        "with id": "99.50 ± 0.71",
        "recognised": "97.00",
        "without id": "96.00",
        "forgetting": "0.00",
        "seconds": "10",
        "passes": "1.0",
        "free": "60",
        "MB": "2.5",
        "seeds": "2",
    }


def test_what_differs_in_more_than_its_seed_stands_apart() -> None:
    rows = [
        row(method="ewc", free=[None, None], bytes=None),
        row(benchmark="live_swap"),
        row(scale="paper"),
        row(overrides=["epochs=1"]),
        row(interface="http"),
        row(definition={}),
        row(),
    ]
    groups = grouped(rows)
    assert [(group.scale, group.title) for group in groups] == [
        ("small", "eidetic"),
        ("small", "eidetic (epochs=1)"),
        ("small", "eidetic (recipe 1)"),
        ("small", "eidetic (over HTTP)"),
        ("small", "ewc"),
        ("paper", "eidetic"),
    ]
    cells = dict(zip(COLUMNS, groups[4].cells(), strict=True))
    assert (cells["free"], cells["MB"]) == ("–", "–")


def test_a_figure_that_one_seed_lacks_is_not_made_up() -> None:
    (group,) = grouped([row(0), row(1, recognised=None)])
    assert group.cells()[1] == "–"


def test_measured_and_published_figures_stand_beside_each_other() -> None:
    lines = markdown(grouped([row()])).splitlines()
    assert lines[0] == "#### split_mnist"
    assert lines[4] == "| eidetic, small | 99.00 | 97.00 | 96.00 | 0.00 | 10 | 1.0 | 60 | 2.5 | 1 |"
    (rmn,) = (line for line in lines if line.startswith("| *rmn"))
    assert "arXiv 2102.11343" in rmn
    assert rmn.split("|")[4].strip() == "99.5 ± 0.2"
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_every_published_figure_belongs_to_a_benchmark_and_a_method() -> None:
    for paper in PUBLISHED:
        assert paper.benchmark in SEQUENCES
        assert paper.method in (*METHODS, *BASELINES)
        assert paper.source
        assert paper.with_id or paper.without_id or paper.forgetting


def test_a_table_replaces_only_what_is_between_the_marks(tmp_path: Path) -> None:
    results, readme = tmp_path / "results.jsonl", tmp_path / "page.md"
    results.write_text(json.dumps(row()) + "\n")
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    main([str(results), "--write", str(readme)])
    text = readme.read_text()
    assert text == f"before\n{BEGIN}\n\n{page([row()])}\n\n{END}\nafter\n"
    assert insert_table(text, "new") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    readme.write_text("no marks")
    with pytest.raises(SystemExit, match="no marks"):
        main([str(results), "--write", str(readme)])


def test_the_table_in_the_readme_is_the_one_of_the_results() -> None:
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    rows = [json.loads(line) for path in sorted(RESULTS.glob("*.jsonl")) for line in path.read_text().splitlines()]
    assert insert_table(text, page(rows)) == text


def test_rows_of_one_task_or_all_at_once_have_no_curve() -> None:
    accuracy, forgotten, capacity = (CURVES[name][0] for name in ("accuracy", "forgetting", "capacity"))
    assert (accuracy(row()), forgotten(row()), capacity(row())) == ([100.0, 94.0], [0.0, 10.0], [80.0, 60.0])
    joint = row(matrix_without_id=[[90.0, 98.0]], free=[None, None])
    assert (accuracy(joint), forgotten(joint), capacity(joint)) == (None, None, None)


def test_pictures_are_drawn_of_all_that_is_there(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [
        row(0),
        row(1),
        row(method="joint", matrix_with_id=[[1.0, 2.0]], matrix_without_id=[[1.0, 2.0]], free=[None]),
    ]
    paths = draw(grouped(rows), tmp_path)
    assert [path.name for path in paths] == [
        "split_mnist-small-accuracy.png",
        "split_mnist-small-forgetting.png",
        "split_mnist-small-capacity.png",
        "split_mnist-small-eidetic-matrix.png",
        "split_mnist-small-eidetic-routing.png",
        "split_mnist-small-joint-routing.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
