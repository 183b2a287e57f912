"""Tests of what the learning report warns of."""

from __future__ import annotations

import pytest
import torch

from engram.training.report import LearningReport


def routed(to_it: int, to_dogs: int) -> LearningReport:
    """A report on a task of cats, and where its held-out images are given to."""
    report = LearningReport("cats", {"tabby": 9}, to_it + to_dogs, {})
    report.route(torch.tensor([0] * to_dogs + [1] * to_it), ["dogs", "cats"])
    report.recognised = to_it / (to_it + to_dogs)
    report.heed_recognition()
    return report


def test_a_task_that_is_seldom_recognised_is_warned_of() -> None:
    assert routed(1, 9).warnings == [
        "without the task named, 10% of its held-out images are recognised as of this task, and 9 are given to 'dogs'; "
        "min_recognised makes a job fail instead"
    ]


@pytest.mark.parametrize(("to_it", "to_dogs"), [(5, 5), (10, 0)])
def test_one_that_is_recognised_is_not(to_it: int, to_dogs: int) -> None:
    assert routed(to_it, to_dogs).warnings == []
