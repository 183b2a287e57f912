"""Detectors: each tells its task from those that have contended with it, by what its own network sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from engram.recognition.staged.per_task import per_task
from engram.recognition.staged.totals import Totals

MOST_VALUES = 256
"""Values of a network that its detector reads at most; of more, those that its head weighs most."""

LARGEST = 2**12 - 1
"""Of a value on the grid, in steps."""

FINEST = 2.0**-16
"""Step of a grid at least: of finer ones a constant of one would be so many that its squares have no exact sums."""

SHRINKAGE = 0.05
"""Share of the mean variance in every direction's variance."""

FEW = 10.0
"""Images that the mean variance counts for, beside those there are."""


@dataclass(frozen=True, eq=False)
class Reading:
    """The values of a network that its detector reads, and the grid that they are put on."""

    chosen: Tensor
    """(P,) int64: which of the network's features."""
    step: float
    """A power of two."""

    @classmethod
    def of(cls, features: Tensor, head: Tensor) -> Self:
        """For features (N, F_t) of the task's own images, weighed by a head (classes, F_t)."""
        count = min(MOST_VALUES, features.shape[1])
        chosen = head.double().square().sum(0).topk(count).indices.sort().values
        largest = max(float(features[:, chosen].max()), FINEST * LARGEST)
        return cls(chosen, 2.0 ** float(torch.tensor(largest / LARGEST, dtype=torch.float64).log2().ceil()))

    def to_row(self) -> dict[str, object]:
        """What a header says of it."""
        return {"chosen": self.chosen.tolist(), "step": self.step}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_row`."""
        return cls(torch.tensor(row["chosen"], dtype=torch.int64), float(row["step"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reading) and self.to_row() == other.to_row()

    def __hash__(self) -> int:
        return hash((self.step, tuple(self.chosen.tolist())))

    def __call__(self, features: Tensor) -> Tensor:
        """(B, F_t) -> (B, P): on the grid."""
        return (features[:, self.chosen] / self.step).round().clamp(0, LARGEST) * self.step


@dataclass(frozen=True)
class ValueDetector:
    """Linear discriminants between the classes of a task and those of tasks that have given it negatives."""

    weights: Tensor
    """(P + 1, classes): from a network's values and a constant to log-densities."""
    tasks: tuple[str, ...]
    """The detector's own task first."""
    sizes: tuple[int, ...]
    """Classes of each."""
    apart: tuple[float, ...] = ()
    """For each but the own task how far its nearest class is from the own task's, in standard deviations."""

    @classmethod
    def of(cls, totals: Totals) -> Self:
        """From the totals over the network's values, of the own task and those that gave negatives."""
        means = totals.means()[:-1]  # (P, classes)
        within = totals.matrix()[:-1, :-1] - means @ means.T
        classes, images = means.shape[1], float(totals.counts.sum())
        shrunk = SHRINKAGE + FEW * len(means) / (images + FEW * len(means)) * (1 - SHRINKAGE)
        within = within / classes
        sphere = float(within.diagonal().mean().clamp_min(1e-12)) * torch.eye(len(within), dtype=torch.float64)
        directions = torch.linalg.solve((1 - shrunk) * within + shrunk * sphere, means)  # (P, classes)
        inner = means.T @ directions  # (classes, classes)
        constants = -0.5 * inner.diagonal()[None]
        square = inner.diagonal()[:, None] + inner.diagonal()[None] - 2 * inner
        names, sizes = tuple(one.task for one in totals.tasks), tuple(totals.sizes)
        return cls(torch.cat([directions, constants]).float(), names, sizes, separations(square, sizes, 0)[1:])

    def log_odds(self, values: Tensor) -> Tensor:
        """(B, others): of the own task against each that has given negatives, for values (B, P) on the grid."""
        scores = values @ self.weights[:-1] + self.weights[-1]
        logs = per_task(scores, self.sizes, torch.logsumexp)
        return logs[:, :1] - logs[:, 1:]

    def to_row(self) -> dict[str, object]:
        """What a header says of it."""
        return {"tasks": list(self.tasks), "sizes": list(self.sizes), "apart": list(self.apart)}


def separations(square: Tensor, sizes: Sequence[int], number: int) -> tuple[float, ...]:
    """For each task the distance of its nearest class from those of task `number`.

    Parameters
    ----------
    square
        (classes, classes): squared distances between the means of all classes.
    sizes
        Classes of each task.
    """
    rows = torch.split(square, list(sizes))[number]
    return tuple(float(part.min().clamp_min(0).sqrt()) for part in torch.split(rows, list(sizes), 1))


def strongest(masses: Mapping[str, float], most: int) -> tuple[str, ...]:
    """The names of at most so many earlier tasks that an image of a new one would be shown to, in their own order."""
    best = sorted(masses, key=lambda name: -masses[name])[:most]
    return tuple(name for name in masses if name in best)
