"""Tests of the SHARC studies."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.plan import make_plan
from benchmarks.harness.presets import COMMON
from benchmarks.studies.sharc_recall import Patterns, patterns_of, recall_curve
from benchmarks.studies.sharc_replay import TaskSequence, prepare_sequence, results_table, run_arm
from engram import Memory
from engram.config.sharc import SharcSettings
from tests.benchmarks.small import bar_tasks


@pytest.fixture(scope="module")
def sequence() -> TaskSequence:
    return prepare_sequence(bar_tasks(2), "split_mnist", "small", 0)


@pytest.mark.parametrize(("arm", "least"), [("er images", 60), ("er maps", 60), ("sharc 0.5, hopfield", 60)])
def test_a_life_keeps_to_its_bytes_and_remembers(sequence: TaskSequence, arm: str, least: int) -> None:
    found = run_arm(sequence, arm, 16, "small", 0)
    assert isinstance(found["bytes"], int)
    assert 0 < found["bytes"] <= 16 * 1024
    assert isinstance(found["test"], float)
    assert found["test"] > least, "chance is 25 %"


def test_maps_are_computed_for_every_image_as_the_backbone_does(sequence: TaskSequence) -> None:
    examples = sequence.parts[1][2]
    again = sequence.maps(examples.images.float() / 255)
    torch.testing.assert_close(sequence.cache[id(examples)].float(), again, rtol=1e-3, atol=1e-3)


def test_recall_is_measured_for_every_memory_and_cue() -> None:
    maps = torch.rand(40, 8, 4, generator=torch.Generator().manual_seed(0))
    scores = torch.rand(40, 8, generator=torch.Generator().manual_seed(1))
    rows = list(recall_curve(Patterns(maps, torch.arange(40) % 4, scores), SharcSettings(rank=8, beta=1e5)))
    assert {(row["memory"], row["patterns"]) for row in rows} == {
        (memory, count) for memory in ("gaussian", "hopfield", "none") for count in (10, 30, 40)
    }
    errors = {(row["memory"], row["cue"], row["strength"]): row["error"] for row in rows if row["patterns"] == 40}
    assert errors["hopfield", "masked", 0.3] < 0.01
    assert errors["gaussian", "masked", 0.3] < errors["gaussian", "masked", 0.8] < errors["none", "masked", 0.8]
    assert errors["gaussian", "corrupted", 1.0] < errors["none", "corrupted", 1.0]


def test_patterns_are_of_all_classes_in_equal_numbers(sequence: TaskSequence) -> None:
    patterns = patterns_of(sequence, 20)
    assert torch.bincount(patterns.labels).tolist() == [2, 2, 2, 2]
    assert patterns.scores.shape == patterns.maps.shape[:2]


def test_the_chosen_quantile_is_the_one_that_held_out_images_prefer() -> None:
    rows = [
        {"arm": "sharc 0.3", "kib": 8, "held_out": 70.0, "test": 50.0, "maps": 9},
        {"arm": "sharc 0.8", "kib": 8, "held_out": 60.0, "test": 90.0, "maps": 9},
    ]
    column = list(results_table(rows).columns[1].cells)
    assert column[-1] == "50.00 (9)"
    assert "no room" in column


UNTAKEN = ("single_mnist", "single_cifar10_lite0", "split_cifar10_lite0")
TAKEN = [(benchmark, scale) for benchmark, scale in COMMON if benchmark not in UNTAKEN]
"""What SHARC can be measured on: tasks of two classes at least, and a backbone of its own."""


@pytest.mark.parametrize(("benchmark", "scale"), TAKEN)
def test_every_benchmark_has_a_model_for_it(benchmark: str, scale: str) -> None:
    plan = make_plan(benchmark, "sharc", "paper" if scale == "paper" else "small", "python", "cpu", 0, [])
    definition = plan.model(bar_tasks(1).shape)
    assert Memory.create(definition.model_copy(update={"backbone": "mlp", "depth": 1})).tasks == ()
