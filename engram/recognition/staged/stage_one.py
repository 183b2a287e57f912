"""Stage one of an answer: the classes of all tasks by one matrix product over the commons."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from engram.nn.commons.outputs import Outputs
from engram.recognition.staged.per_task import per_task
from engram.recognition.staged.score_space import ScoreSpace, squared

RIVAL = 0.7
"""Share of the most probable task's probability from which on another contends. What is under it hardly ever wins: the
likelier class of a task has most of the task's probability."""


@dataclass(frozen=True)
class StageOne:
    """The first stage: calibrated probabilities of all classes, and the tasks that contend for each image.

    Parameters
    ----------
    space
        Scores of all classes.
    sizes
        Classes of each task.
    temperature
        Multiplies log-densities: real classes have heavier tails than the Gaussians that stand for them.
    outputs
        Gives what features say by the network's own classifier, when images first are looked at; None for one that is
        asked about classes and tasks alone.
    """

    space: ScoreSpace
    sizes: tuple[int, ...]
    temperature: float
    outputs: Callable[[], Outputs | None] | None = None

    def __call__(self, features: Tensor) -> FirstAnswer:
        """Answers for features (B, F) of the commons."""
        points = self.space.points(features)
        return self.of_points(points, squared(points, self.space.means), self.deviating(features))

    def deviating(self, features: Tensor) -> Tensor | None:
        """(B,): what is unusual in a network's own outputs, of features (B, F); None where that tells nothing."""
        relative = self.space.relative
        if relative is None or relative.outputs is None or self.outputs is None:
            return None
        outputs = self.outputs()
        assert outputs is not None, "a network's classifier is there as long as its weights are the same"
        return relative.outputs.unusual(outputs(features))

    def of_points(self, points: Tensor, distances: Tensor, outputs: Tensor | None = None) -> FirstAnswer:
        """Answers for points (B, D), and their squared distances (B, classes of all tasks) from the classes' means.

        Parameters
        ----------
        outputs
            (B,): as `deviating`.
        """
        log_classes = torch.log_softmax(-0.5 * self.temperature * distances, 1)
        log_tasks = per_task(log_classes, self.sizes, torch.logsumexp)
        return FirstAnswer(log_classes, log_tasks, self.space.unusual(points, distances, self.sizes, outputs))


@dataclass(frozen=True)
class FirstAnswer:
    """What stage one says of B images."""

    log_classes: Tensor
    """(B, classes of all tasks): log-probabilities."""
    log_tasks: Tensor
    """(B, T)."""
    unusual: Tensor
    """(B, T): how far out of each task an image is, in standard deviations."""

    def contenders(self, most: int | None) -> Tensor:
        """(B, T) bool: the tasks whose networks an image is shown to, at most `most`; None for all tasks.

        The most probable one, and those that come near it (`RIVAL`).
        """
        if most is None or self.log_tasks.shape[1] == 1:
            return torch.ones_like(self.log_tasks, dtype=torch.bool)
        logs = self.log_tasks.numpy()
        near = logs >= logs.max(1, keepdims=True) + numpy.float32(math.log(RIVAL))
        if near.sum(1).max(initial=0) <= most:  # as nearly always: then there is nothing to choose
            return torch.from_numpy(near)
        ordered, order = self.log_tasks.sort(1, descending=True)
        chosen = ordered >= ordered[:, :1] + math.log(RIVAL)
        chosen[:, most:] = False
        return torch.zeros_like(chosen).scatter(1, order, chosen)


def temperature_of(evidence: Sequence[tuple[float, float]]) -> float:
    """The mean of tasks' temperatures, in log: from pairs of log-temperature and images that it was fitted on."""
    total = sum(images for _, images in evidence)
    mean = sum(log * images for log, images in evidence) / max(total, 1.0)
    return float(torch.tensor(mean, dtype=torch.float64).exp())
