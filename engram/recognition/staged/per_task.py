"""Reductions over the classes of each task, of all tasks in few operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

Reduction = Callable[[Tensor, int], Tensor]
"""Reduces one dimension of a tensor, such as `torch.logsumexp`."""


def per_task(values: Tensor, sizes: Sequence[int], reduce: Reduction) -> Tensor:
    """(B, classes of all tasks) -> (B, T): each task's classes reduced to one value.

    It is bit for bit what `reduce` gives for the classes of each task by themselves: only tasks of as many classes are
    reduced together.

    Parameters
    ----------
    sizes
        Classes of each task.
    """
    groups = _groups(tuple(sizes))
    if len(groups) == 1:
        return reduce(values.reshape(len(values), len(sizes), sizes[0]), 2)
    found = values.new_empty(len(values), len(sizes))
    for size, tasks, columns in groups:
        found[:, tasks] = reduce(values.index_select(1, columns).view(len(values), len(tasks), size), 2)
    return found


@lru_cache(maxsize=64)
def _groups(sizes: tuple[int, ...]) -> list[tuple[int, Tensor, Tensor]]:
    """For each number of classes the tasks (t,) that have as many, and the classes (t * size,) of all these."""
    firsts = [0, *accumulate(sizes)]
    found = []
    for size in dict.fromkeys(sizes):
        tasks = [number for number, own in enumerate(sizes) if own == size]
        columns = [firsts[number] + label for number in tasks for label in range(size)]
        found.append((size, torch.tensor(tasks), torch.tensor(columns)))
    return found
