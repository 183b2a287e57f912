"""Tests of the baselines, which need the extra `benchmarks`."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch

from benchmarks.baselines.network import BaselineNetwork
from benchmarks.baselines.unsuited import Unsuited
from benchmarks.harness.datasets import Tasks
from benchmarks.harness.evaluation import measure
from benchmarks.harness.presets import BASELINE_SETTINGS, BASELINES
from engram import Examples, LearnOptions
from testing.data.patterns import definition
from tests.benchmarks.small import bar_tasks

pytestmark = pytest.mark.skipif(importlib.util.find_spec("avalanche") is None, reason="needs the extra `benchmarks`")

OPTIONS = LearnOptions(epochs=12, batch_size=8, learning_rate=3e-3)
MODEL = definition("mlp", width=0.2)


def baseline(name: str, tasks: Tasks, **settings: float) -> Any:
    from benchmarks.baselines.learner import Baseline

    return Baseline(name, MODEL, OPTIONS, tasks, settings or BASELINE_SETTINGS.get(name, {}), "cpu")


def evaluated(name: str, **settings: float) -> dict[str, Any]:
    tasks = bar_tasks(3)
    return measure(baseline(name, tasks, **settings), tasks)


def network_bytes() -> int:
    state = BaselineNetwork(MODEL, [""] * 6, 0).state_dict().values()
    return sum(tensor.numel() * tensor.element_size() for tensor in state)


def test_naive_training_remembers_the_last_task_only() -> None:
    figures = evaluated("naive")
    assert figures["routing"] == [[0, 0, 48], [0, 0, 48], [0, 0, 48]]
    assert figures["forgetting_without_id"] > 80
    assert figures["bytes"] == {"network": network_bytes(), "kept": 0, "all": network_bytes()}
    assert figures["free"] == [None, None, None]
    assert figures["novelty"] == [None, None]


def test_joint_training_knows_all_tasks() -> None:
    figures = evaluated("joint")
    assert figures["without_id"] > 90
    assert figures["forgetting"] is None
    assert len(figures["matrix_with_id"]) == 1
    assert figures["bytes"]["kept"] == 3 * 48 * 12 * 12


def test_replay_and_icarl_keep_images_and_remember_by_them() -> None:
    kept = {"replay": 30 * 144, "icarl": 30 * 144 + network_bytes()}
    naive = evaluated("naive")
    for name, expected in kept.items():
        figures = evaluated(name, images=30)
        assert figures["without_id"] > naive["without_id"] + 20, name
        assert figures["bytes"]["kept"] == expected, name


def test_penalties_hold_the_network_back_and_cost_what_they_keep() -> None:
    naive = evaluated("naive")
    weights = sum(parameter.numel() for parameter in BaselineNetwork(MODEL, [""] * 6, 0).parameters())
    ewc = evaluated("ewc", strength=1e6)
    assert ewc["forgetting"] < naive["forgetting"] - 10
    assert ewc["bytes"]["kept"] == 3 * 2 * 4 * weights
    lwf = evaluated("lwf", alpha=10.0, temperature=2.0)
    assert lwf["forgetting"] < naive["forgetting"] - 10
    assert lwf["bytes"]["kept"] == network_bytes()


def test_the_same_seed_gives_the_same_figures_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, other = evaluated("replay", images=30), evaluated("replay", images=30)
    assert torch.equal(torch.rand(1), expected)
    assert one["matrix_without_id"] == other["matrix_without_id"]


def shared_tasks() -> Tasks:
    tasks = bar_tasks(2)

    def renamed(parts: tuple[Examples, ...]) -> tuple[Examples, ...]:
        return tuple(Examples(part.images, part.labels, ("left", "right")) for part in parts)

    return Tasks(tasks.shape, renamed(tasks.train), renamed(tasks.test))


def test_tasks_that_share_their_classes_share_the_outputs() -> None:
    tasks = shared_tasks()
    figures = measure(baseline("naive", tasks), tasks)
    assert (figures["recognised"], figures["routing"]) == (None, None)
    assert figures["matrix_with_id"] == figures["matrix_without_id"]


def test_what_a_baseline_cannot_do_is_told() -> None:
    with pytest.raises(Unsuited, match="new classes in every task"):
        baseline("icarl", shared_tasks())
    with pytest.raises(Unsuited, match="settings strength"):
        baseline("ewc", bar_tasks(2), images=3)


def test_every_baseline_is_tried() -> None:
    assert set(BASELINES) == {"naive", "joint", "ewc", "lwf", "icarl", "replay"}
