"""Upper triangles of symmetric matrices, row by row."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from engram.errors import DamagedSnapshot

BLOCK = 64
"""Rows that are mirrored at a time."""


def triangle(matrix: Tensor) -> Tensor:
    """(F (F + 1) / 2,): the upper triangle of a symmetric matrix (F, F) on the CPU."""
    given = matrix.numpy()
    rows = [row[number:] for number, row in enumerate(given)]
    return torch.from_numpy(numpy.concatenate(rows)) if rows else matrix.new_zeros(0)


def symmetric(upper: Tensor, size: int) -> Tensor:
    """The inverse of `triangle`: (size, size); raises DamagedSnapshot."""
    if len(upper) != size * (size + 1) // 2:
        raise DamagedSnapshot(f"a triangle of {len(upper)} numbers is not of {size} features")
    matrix = torch.empty(size, size, dtype=upper.dtype)
    given, found, first = upper.numpy(), matrix.numpy(), 0
    for number, row in enumerate(found):
        row[number:] = given[first : first + size - number]
        first += size - number
    for start in range(0, size, BLOCK):  # a column at a time would read all of the memory's lines for a value of each
        end = min(size, start + BLOCK)
        matrix[end:, start:end] = matrix[start:end, end:].T
        square = found[start:end, start:end]
        below = numpy.tril_indices(end - start, -1)
        square[below] = square.T[below]
    return matrix
