"""Metrics of continual learning from the accuracy matrix."""

from __future__ import annotations

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]
"""`matrix[i][j]`: accuracy on task j, measured after task i was learned; row i has i + 1 entries."""


def average_accuracy(matrix: Matrix) -> float:
    """Mean accuracy over all tasks after the last one was learned (Lopez-Paz and Ranzato 2017, ACC)."""
    return sum(matrix[-1]) / len(matrix[-1])


def forgetting(matrix: Matrix) -> float:
    """Mean drop of each task but the last from its best accuracy (Chaudhry et al. 2018); 0 for one task."""
    last = len(matrix) - 1
    falls = [max(matrix[i][task] for i in range(task, last)) - matrix[last][task] for task in range(last)]
    return sum(falls) / len(falls) if falls else 0.0


def backward_transfer(matrix: Matrix) -> float:
    """Mean change of each task but the last since it was learned (Lopez-Paz and Ranzato 2017, BWT)."""
    last = len(matrix) - 1
    changes = [matrix[last][task] - matrix[task][task] for task in range(last)]
    return sum(changes) / len(changes) if changes else 0.0
