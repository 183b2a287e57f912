"""Tests of labels: classes of one name in several tasks are one label, or several."""

from __future__ import annotations

import torch

from engram.nn.capacity import TaskInfo
from engram.recognition.staged.observation import Labels

TASKS = (TaskInfo("a", ("cat", "dog")), TaskInfo("b", ("dog", "cow")), TaskInfo("c", ("cat",)))
JOINT = torch.tensor([[0.1, 0.2, 0.25, 0.15, 0.3]])


def test_joined_labels_have_the_probability_of_all_their_classes() -> None:
    labels = Labels.of(TASKS, joined=True)
    assert labels.names == ("cat", "dog", "cow")
    assert labels.classes == ((0, 4), (1, 2), (3,))
    assert labels.tasks == (0, 0, 1, 1, 2)
    assert labels.summed(JOINT).allclose(torch.tensor([[0.4, 0.45, 0.15]]))


def test_labels_kept_apart_are_one_for_each_class() -> None:
    labels = Labels.of(TASKS, joined=False)
    assert labels.names == ("cat", "dog", "dog", "cow", "cat")
    assert labels.summed(JOINT) is JOINT
