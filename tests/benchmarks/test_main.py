"""Tests of the command line: runs, resumption and results files."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest

from benchmarks.__main__ import PROGRAMS, SEQUENCES, descriptions, main, usage
from benchmarks.harness import datasets
from benchmarks.harness.datasets import Sizes
from benchmarks.harness.evaluation import BenchmarkProgress
from benchmarks.harness.plan import BadOverride, Plan, make_plan
from benchmarks.harness.presets import COMMON, METHODS, Preset, preset
from benchmarks.harness.results import UnfinishedRun, rows_of
from benchmarks.sequences import run, run_all
from engram import Definition, Examples, InputShape
from engram.checkpointing.progress import Progress
from engram.errors import TooFewImages
from tests.benchmarks.small import bar_tasks, write_mnist

FIELDS = {"backbone": "mlp", "width": 0.1, "commons": {"features": 128, "patch": 5}}
OPTIONS = {"epochs": 1, "rounds": 1, "recovery_epochs": 1, "tolerance": 0.1, "augment": "none", "batch_size": 16}
TIMES = ("seconds", "seconds_per_task")


def plan(**changes: Any) -> Plan:
    fields = {"definition": FIELDS, "options": OPTIONS, "seed": 0, "method": "eidetic", "sizes": Sizes()}
    return Plan(benchmark="split_mnist", scale="small", interface="python", device="cpu", **{**fields, **changes})


def test_a_life_that_was_interrupted_goes_on_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, here = bar_tasks(3), UnfinishedRun(tmp_path / "out.jsonl", plan().key)
    whole = run(plan(), tasks, None)
    unlearnable = Examples(tasks.train[2].images[:1], tasks.train[2].labels[:1], tasks.train[2].classes)
    with pytest.raises(TooFewImages):
        run(plan(), replace(tasks, train=(*tasks.train[:2], unlearnable)), here)
    assert [path.name for path in here.folder.glob("memory-*")] == ["memory-2"]
    capsys.readouterr()
    resumed = run(plan(), tasks, here)
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "eidetic, seed 0: going on after 2 tasks",
        "split_mnist eidetic seed 0: task 3 of 3 learned",
    ]
    assert {k: v for k, v in resumed.items() if k not in TIMES} == {k: v for k, v in whole.items() if k not in TIMES}


def test_a_finished_run_is_one_line_and_is_not_run_again(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    out = tmp_path / "results" / "out.jsonl"
    plans = [plan(seed=0), plan(seed=1)]
    first = run_all(plans, tmp_path, out, 1, "the command")
    assert rows_of(out) == json.loads(json.dumps(first))
    assert [row["seed"] for row in first] == [0, 1]
    assert all(row["command"] == "the command" and row["bytes"]["all"] > 0 for row in first)
    assert all(row.keys() >= {"commit", "machine", "torch", "device", "options", "definition"} for row in first)
    assert list(out.parent.iterdir()) == [out]
    (tmp_path / "mnist.npz").unlink()  # nothing is even loaded
    assert run_all(plans, tmp_path, out, 1, "another command") == rows_of(out)
    assert len(rows_of(out)) == 2


def test_what_is_kept_of_a_life_is_replaced_as_it_goes_on(tmp_path: Path) -> None:
    here = UnfinishedRun(tmp_path / "out.jsonl", "key")
    assert here.progress() is None
    for count in (1, 2):
        progress = BenchmarkProgress(seconds=[1.0] * count, free=[None] * count)
        here.memory(progress).mkdir(parents=True)
        here.keep(progress)
        assert here.progress() == progress
        assert [path for path in here.folder.iterdir() if path.is_dir()] == [here.memory(progress)]
    here.clear()
    assert list(tmp_path.iterdir()) == []


def test_overrides_reach_the_field_that_they_name() -> None:
    said = ["epochs=3", "width=0.5", "augment=none", "settings.rank=40", "commons.patch=4"]
    made = make_plan("split_mnist", "sharc", "small", "python", "cpu", 2, said)
    assert made.options == {"epochs": 3, "augment": "none"}
    assert made.definition == {
        "backbone": "cnn",
        "retention": "features",
        "width": 0.5,
        "settings": {"rank": 40},
        "commons": {"patch": 4},
    }
    assert made.seed == 2
    for wrong in ("epochs", "nothing=1", "seed=1", "method=rnf", "options.epochs=1"):
        with pytest.raises(BadOverride):
            make_plan("split_mnist", "eidetic", "small", "python", "cpu", 0, [wrong])


def test_the_key_tells_runs_apart_by_what_they_are() -> None:
    assert plan().key == plan(overrides=("epochs=1",)).key
    others = [plan(seed=1), plan(method="rnf"), plan(options={}), plan(definition={}), plan(sizes=Sizes(5))]
    assert len({plan().key, *(other.key for other in others)}) == 6


def test_presets_are_overlaid_and_baselines_take_those_of_the_default_method() -> None:
    over = Preset({"width": 2.0, "settings": {"a": 1}}, {"epochs": 2})
    below = Preset({"width": 1.0, "depth": 2, "settings": {"a": 0, "b": 0}}, {"epochs": 1, "rounds": 1})
    assert over.over(below) == Preset(
        {"width": 2.0, "depth": 2, "settings": {"a": 1, "b": 0}}, {"epochs": 2, "rounds": 1}
    )
    ewc, eidetic = preset("permuted_mnist", "paper", "ewc"), preset("permuted_mnist", "paper", "eidetic")
    assert ewc.options == eidetic.options
    assert ewc.definition == {**eidetic.definition, "settings": {"strength": 100.0}}


@pytest.mark.parametrize(("benchmark", "scale"), list(COMMON))
def test_every_preset_says_what_a_model_and_its_options_can_be(benchmark: str, scale: Any) -> None:
    shape = (
        InputShape(channels=3, height=32, width=32)
        if "cifar" in benchmark
        else InputShape(channels=1, height=28, width=28)
    )
    for method in METHODS:
        made = make_plan(benchmark, method, scale, "python", "cpu", 0, [])
        made.learning()
        if method in get_args(Definition.model_fields["method"].annotation):
            assert made.model(shape).method == method


def test_the_command_learns_and_prints_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist(tmp_path, train=6, test=3)
    small = ["backbone=mlp", "width=0.05", "epochs=1", "rounds=1", 'commons={"features": 64}']
    said = [part for override in small for part in ("--set", override)]
    out = tmp_path / "out.jsonl"
    main(["split_mnist", "--data", str(tmp_path), "--threads", "1", "--out", str(out), *said])
    shown = capsys.readouterr().out
    assert "split_mnist eidetic seed 0: task 5 of 5 learned" in shown
    assert "recognised" in shown
    (row,) = rows_of(out)
    assert row["images"] == {"train": [12] * 5, "test": [6] * 5}
    assert str(row["command"]).startswith("python -m benchmarks split_mnist --data")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([], "mnist.npz is missing"),
        (["--set", "nothing=1"], "neither LearnOptions nor Definition"),
        (["--set", "epochs=0"], "epochs: "),
        (["--method", "naive", "--http"], "--http runs the service"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path: Path, said: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["split_mnist", "--data", str(tmp_path), "--threads", "1", *said])


def test_one_command_knows_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    for scenario, module in PROGRAMS.items():
        assert find_spec(module) is not None, scenario
    assert SEQUENCES.keys() == datasets.SEQUENCES.keys()
    with pytest.raises(SystemExit) as left:
        main(["tables", "--help"])
    assert left.value.code == 0
    assert "python -m benchmarks tables" in capsys.readouterr().out


def test_every_scenario_is_listed_with_its_description(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    rows = dict(line.split(maxsplit=1) for line in shown.partition("SCENARIO is one of\n")[2].splitlines())
    assert rows == descriptions()
    assert rows.keys() == SEQUENCES.keys() | PROGRAMS.keys()
    for scenario, module in PROGRAMS.items():
        assert (import_module(module).__doc__ or "").startswith(rows[scenario])
        assert len(rows[scenario]) > len(scenario)


@pytest.mark.parametrize(("said", "message"), [([], ""), (["nonsense"], "no scenario is called 'nonsense'\n\n")])
def test_without_a_scenario_the_list_is_an_error(
    said: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(said)
    assert left.value.code == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert errors == f"{message}{usage()}\n"


def test_progress_is_accepted_in_every_phase() -> None:
    from benchmarks.harness.progress_bars import ProgressBars

    with ProgressBars(plan(), 2) as bars:
        bars.watch(0, Progress("training", 0.5, epoch=1, accuracy=0.5))
        bars.watch(0, None)
