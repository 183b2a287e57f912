"""Tests of the evaluation with a learner of known answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from benchmarks.harness.evaluation import measure
from benchmarks.harness.learners import BenchmarkPrediction
from benchmarks.harness.novelty import evenly_spaced
from engram import Examples
from engram.checkpointing.progress import Progress
from tests.benchmarks.small import bar_tasks


class Newest:
    """Learner that knows every label, but without an id assigns all images to the newest task.

    If `blind`, its predictions have no novelty.
    """

    incremental = True

    def __init__(self, blind: bool = False) -> None:
        self._known: dict[str, Examples] = {}
        self._blind = blind

    def learn(self, task: str, examples: Examples, progress: Callable[[Progress], None]) -> dict[str, object]:
        self._known[task] = examples
        progress(Progress("training", 1.0))
        return {"units": {"layer": len(self._known)}}

    def predict(self, examples: Examples, task: str | None) -> list[BenchmarkPrediction]:
        named = task or list(self._known)[-1]
        old = any(known.classes == examples.classes for known in self._known.values())
        novelty, known = (None, None) if self._blind else (0.2 if old else 0.9, old)
        classes = self._known[named].classes
        return [
            BenchmarkPrediction(named, classes[label], 0.75, novelty, known, 2) for label in examples.labels.tolist()
        ]

    def free(self) -> float:
        return 1 - len(self._known) / 4

    def stored(self) -> dict[str, int]:
        return {"all": 7}


def test_the_figures_of_a_memory_that_recognises_only_the_newest_task() -> None:
    tasks = bar_tasks(3)
    seen: list[int] = []
    figures = measure(Newest(), tasks, watch=lambda number, progress: seen.append(number))
    assert (figures["with_id"], figures["without_id"], figures["recognised"]) == (100.0, 33.33, 33.33)
    assert figures["matrix_with_id"] == [[100.0], [100.0, 100.0], [100.0, 100.0, 100.0]]
    assert figures["matrix_without_id"] == [[100.0], [0.0, 100.0], [0.0, 0.0, 100.0]]
    assert (figures["forgetting"], figures["forgetting_without_id"]) == (0.0, 100.0)
    assert figures["routing"] == [[0, 0, 48], [0, 0, 48], [0, 0, 48]]
    assert figures["free"] == [75.0, 50.0, 25.0]
    assert figures["units_per_task"] == [{"layer": 1}, {"layer": 2}, {"layer": 3}]
    assert (figures["passes"], figures["bytes"]) == (2.0, {"all": 7})
    assert figures["calibration_error"] == pytest.approx(100 * 2 * abs(1 / 3 - 0.75) / 2, abs=0.01)
    assert seen == [0, 0, 1, 1, 2, 2]


def test_new_images_are_compared_with_old_ones_before_they_are_learned() -> None:
    found = {"auroc": 100.0, "fpr95": 0.0, "false_alarms": 0.0, "found": 100.0}
    assert measure(Newest(), bar_tasks(3))["novelty"] == [found, found]
    assert measure(Newest(blind=True), bar_tasks(3))["novelty"] == [None, None]


def test_a_sample_is_spread_over_all_examples() -> None:
    (examples,) = bar_tasks(1).train
    sample = evenly_spaced(examples, 5)
    assert torch.equal(sample.images, examples.images[[0, 11, 23, 35, 47]])
    assert evenly_spaced(examples, 1000) is examples
