"""The task recogniser: which task an image belongs to, from the same pass that computes the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.density import Density

SHARPNESS = 10.0
"""Ridge scores estimate probabilities around 0 and 1; this is where their softmax starts from."""

CAUTION = 0.1
"""Where the weight of the densities starts from."""

ALPHA = 0.01
"""An image is unknown to a task when fewer than this share of the task's held-out images look as unusual."""


@dataclass(frozen=True)
class Reading:
    """What the recogniser knows of one task."""

    task: str
    classes: int
    density: Density
    temperature: Tensor
    """(): divides the head's logits so that their softmax is calibrated on held-out images."""


@dataclass(frozen=True)
class Recogniser:
    """Ridge scores over the commons, fused with each task's density over its own prefix, as calibrated probabilities.

    The log-odds of task t are logsumexp over its classes of sharpness x score, less caution x the standardised log
    distance. Both weights are shared by all tasks, and are the mean over the tasks learned so far of what fitted their
    held-out images best, weighted by how many there were.
    """

    weights: Tensor
    """(F + 1, classes): ridge regression onto one-hot labels, over the commons and a constant."""
    readings: tuple[Reading, ...]
    sharpness: Tensor
    """()."""
    caution: Tensor
    """()."""
    evidence: Tensor
    """(): held-out images that the two were fitted on."""

    @classmethod
    def empty(cls, features: int) -> Recogniser:
        return cls(torch.zeros(features + 1, 0), (), torch.tensor(SHARPNESS), torch.tensor(CAUTION), torch.tensor(0.0))

    def class_scores(self, commons: Tensor) -> Tensor:
        """Ridge scores (B, classes of all tasks) from features of the commons (B, F)."""
        return commons @ self.weights[:-1] + self.weights[-1]

    def distances(self, prefixes: Sequence[Tensor]) -> Tensor:
        """(B, T): each task's squared distance, from its own prefix features."""
        pairs = zip(self.readings, prefixes, strict=True)
        return torch.stack([reading.density.distance(features) for reading, features in pairs], 1)

    def log_probabilities(self, scores: Tensor, distances: Tensor) -> Tensor:
        """(B, T): log of the calibrated probability of each task, from class scores and distances."""
        evidence, unusual = self._summaries(scores, distances, self.sharpness)
        return torch.log_softmax(evidence - self.caution * unusual, 1)

    def p_values(self, distances: Tensor) -> Tensor:
        """(B, T): each task's conformal p-value."""
        columns = zip(self.readings, distances.unbind(1), strict=True)
        return torch.stack([reading.density.p_value(column) for reading, column in columns], 1)

    def _summaries(self, scores: Tensor, distances: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
        parts = torch.split(sharpness * scores, [reading.classes for reading in self.readings], 1)
        evidence = torch.stack([part.logsumexp(1) for part in parts], 1)  # (B, T)
        columns = zip(self.readings, distances.unbind(1), strict=True)
        unusual = torch.stack([reading.density.standardised(column) for reading, column in columns], 1)  # (B, T)
        return evidence, unusual.clamp(-8.0, 8.0)

    def calibrated(self, scores: Tensor, distances: Tensor) -> Recogniser:
        """The recogniser with its two weights fitted to held-out images (M of them) of its newest task.

        Maximum likelihood of the right task, started from, and averaged with, what earlier tasks gave.
        """
        count = len(scores)
        if len(self.readings) < 2:
            return self
        right = torch.full((count,), len(self.readings) - 1)
        free = torch.stack([self.sharpness.log(), self.caution.log()]).double().requires_grad_(True)
        start = free.detach().clone()
        solver = torch.optim.LBFGS([free], max_iter=60, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            solver.zero_grad()
            sharpness, caution = free.exp()
            evidence, unusual = self._summaries(scores.double(), distances.double(), sharpness)
            loss = torch.nn.functional.cross_entropy(evidence - caution * unusual, right)
            loss = loss + (free - start).square().sum() * (5.0 / count)  # a weak pull: easy tasks have no optimum
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return loss

        solver.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        fitted = free.detach().float()
        total = self.evidence + count
        mixed = (start.float() * self.evidence + fitted * count) / total
        return replace(self, sharpness=mixed[0].exp(), caution=mixed[1].exp(), evidence=total)


def fitted_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """The temperature that minimises the cross-entropy of logits (M, classes) on labels (M,)."""
    grid = torch.logspace(-1, 1, 41)
    losses = torch.stack([torch.nn.functional.cross_entropy(logits / value, labels) for value in grid])
    return grid[losses.argmin()]
