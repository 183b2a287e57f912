"""Totals over all tasks: second moments in which every class counts alike, as exact whole numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.integers import narrowed, narrowed_gram, widened, widened_gram

ROWS = 64
"""Of the second moments that are computed at a time: they stay in the processor's cache."""


@dataclass(frozen=True)
class TaskMoments:
    """The part of a task's sums that the totals keep apart."""

    task: str
    moments: Tensor
    """(F, classes) float64: the sum of phi over each class, in steps."""
    counts: Tensor
    """(classes,) float64."""


@dataclass(frozen=True)
class Totals:
    """The sum over tasks of their classes' second moments, which is whole and has no order: a task can be taken away.

    Of each task it holds K / n times the scatter within its K classes, which its n images tell of together, and the
    outer product of each class's mean with itself; so a class counts the same whatever its images are.

    Parameters
    ----------
    second
        (F + 1, F + 1) int64: in squared steps, rounded, which is far under what the ridge adds; the last feature is a
        constant of one.
    tasks
        In order.
    step
        Of the features.
    """

    second: Tensor
    tasks: tuple[TaskMoments, ...]
    step: float

    @classmethod
    def empty(cls, features: int, step: float) -> Self:
        return cls(torch.zeros(features + 1, features + 1, dtype=torch.int64), (), step)

    def plus(self, task: str, sums: ExactSums) -> Totals:
        """With one task more."""
        kept = TaskMoments(task, sums.moments, sums.counts)
        return Totals(_second_moments(sums).add_(self.second), (*self.tasks, kept), self.step)

    def minus(self, task: str, sums: ExactSums) -> Totals:
        """Without a task whose sums these are: what they were if it had never been learned."""
        left = tuple(one for one in self.tasks if one.task != task)
        return Totals(self.second - _second_moments(sums), left, self.step)

    @property
    def counts(self) -> Tensor:
        """(classes of all tasks,): images of each."""
        return torch.cat([one.counts for one in self.tasks])

    @property
    def sizes(self) -> list[int]:
        """Classes of each task."""
        return [len(one.counts) for one in self.tasks]

    def means(self) -> Tensor:
        """(F + 1, classes of all tasks) float64: the mean of each class, its last value a one."""
        moments, counts = torch.cat([one.moments for one in self.tasks], 1), self.counts
        return torch.cat([moments * self.step / counts, torch.ones(1, len(counts), dtype=torch.float64)])

    def matrix(self) -> Tensor:
        """(F + 1, F + 1) float64: the second moments in the scale of the features."""
        return self.second.double().mul_(self.step**2)

    @property
    def rounding(self) -> float:
        """More than rounding can have changed the second moments in any direction.

        The norm of a symmetric matrix of noise is twice its deviation times the root of its size; that of a rounding is
        0.29, and those of tasks add up by their squares.
        """
        return math.sqrt(len(self.second) * max(1, len(self.tasks))) * self.step**2

    def dump(self) -> bytes:
        """The totals as bytes."""
        return pack("totals", *self.parts())

    def parts(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Header and tensors of the totals."""
        rows = [{"task": one.task, "classes": len(one.counts)} for one in self.tasks]
        tensors = {f"second.{name}": part for name, part in narrowed_gram(self.second).items()}
        for number, one in enumerate(self.tasks):
            tensors[f"{number}.moments"] = narrowed(one.moments.flatten().to(torch.int64))
            tensors[f"{number}.counts"] = narrowed(one.counts.to(torch.int64))
        return {"tasks": rows, "step": self.step, "features": len(self.second) - 1}, tensors

    @classmethod
    def load(cls, data: bytes) -> Totals:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        return cls.of_parts(*unpack("totals", data))

    @classmethod
    def of_parts(cls, about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> Totals:
        """The inverse of `parts`; raises DamagedSnapshot."""
        try:
            size, rows = int(str(about["features"])), cast(Sequence[Mapping[str, Any]], about["tasks"])
            second = widened_gram({name.removeprefix("second."): part for name, part in tensors.items()})
            tasks = [_task(row, number, tensors, size) for number, row in enumerate(rows)]
            return cls(second, tuple(tasks), float(str(about["step"])))
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            raise DamagedSnapshot(f"the totals lack {error}") from error


def _task(row: Mapping[str, Any], number: int, tensors: Mapping[str, Tensor], features: int) -> TaskMoments:
    moments, counts = (widened(tensors[f"{number}.{name}"]).double() for name in ("moments", "counts"))
    return TaskMoments(str(row["task"]), moments.view(features, int(row["classes"])), counts)


def _second_moments(sums: ExactSums) -> Tensor:
    """(F + 1, F + 1) int64: what a task adds.

    Element by element, in the order of the classes: the same on every machine, or a task could not be taken away on
    another one than it was added on.
    """
    gram, moments = sums.with_constant()
    share, counts = len(sums.counts) / sums.images, sums.counts.tolist()
    weighed = [
        (column.contiguous(), 1 / count**2 - share / count) for column, count in zip(moments.T, counts, strict=True)
    ]
    found = torch.empty(gram.shape, dtype=torch.int64)
    for first in range(0, len(gram), ROWS):
        rows = slice(first, first + ROWS)
        part = gram[rows] * share
        for column, weight in weighed:
            if weight:
                part += torch.outer(column[rows] * weight, column)
        found[rows] = part.round_()
    return found
