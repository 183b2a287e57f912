"""Tests of learning-rate schedules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from torch.nn import Parameter
from torch.optim import Optimizer

from engram import Memory
from engram.config.options import Schedule
from engram.training.optimisers import optimiser_of
from engram.training.trainer import TrainingPhase
from testing.data.patterns import QUICK, bars, definition

RUN = TrainingPhase("training", (0.0, 1.0), epochs=5, peak=0.2, patience=1)


def test_the_constant_one_is_the_same_at_every_step() -> None:
    assert {RUN.rate(step, 40, "constant") for step in range(200)} == {0.2}


def test_the_cosine_warms_up_and_is_annealed() -> None:
    rates = [RUN.rate(step, 40, "cosine") for step in range(200)]
    top = rates.index(max(rates))
    assert 15 <= top <= 25, "a tenth of the run"
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0.18 < max(rates) <= 0.2
    assert rates[0] < 0.02
    assert rates[-1] < 0.001


def rates(schedule: Schedule, changes: dict[str, Any]) -> set[float]:
    """Those that the steps of learning a task were taken with."""
    taken: set[float] = set()
    options = QUICK.model_copy(update={"schedule": schedule, "prune": False})

    def watched(parameters: Iterable[Parameter]) -> Optimizer:
        found = optimiser_of(options, parameters)
        found.register_step_pre_hook(lambda optimiser, *_: taken.add(optimiser.param_groups[0]["lr"]))
        return found

    Memory.create(definition(**changes)).learn("first", bars(0), options, optimiser=watched)
    return taken


@pytest.mark.parametrize("changes", [{}, {"method": "sharc", "retention": "features"}, {"method": "rmn"}])
def test_learning_takes_the_schedule_that_is_asked_for(changes: dict[str, Any]) -> None:
    assert rates("constant", changes) == {QUICK.learning_rate}
    assert len(rates("cosine", changes)) > 5
