"""Fixed batch shapes, in which an answer is the same bytes whatever its neighbours and its row."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

SHAPES = (1, 2, 4, 8, 16)
"""The only batch sizes that staged models compute in."""

ALIGNMENT = 16
"""Values in 64 bytes: kernels read rows that begin there in one and the same way."""

Computed = TypeVar("Computed", Tensor, tuple[Tensor, ...])


def in_shapes(images: Tensor, run: Callable[[Tensor], Computed]) -> Computed:
    """What `run` gives for images, computed in no other batch size than those of `SHAPES`.

    Parameters
    ----------
    images
        (B, ...): cut into parts of the largest shape, the rest being padded with zeros up to the next one.
    run
        Gives a tensor, or a tuple of tensors, with a row for each image.
    """
    largest = SHAPES[-1]
    if len(images) in SHAPES and images.data_ptr() % 64 == 0 and images.is_contiguous():
        return run(images)
    parts = [_padded(run, part) for part in torch.split(images, largest)]
    first = parts[0]
    if isinstance(first, Tensor):
        return first if len(parts) == 1 else torch.cat(parts)  # (B, ...)
    return first if len(parts) == 1 else tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _padded(run: Callable[[Tensor], Computed], part: Tensor) -> Computed:
    count = len(part)
    shape = next(shape for shape in SHAPES if shape >= count)
    padded = part.new_zeros(shape, *part.shape[1:])  # a place of its own, and so aligned
    padded[:count] = part
    found = run(padded)
    return found[:count] if isinstance(found, Tensor) else tuple(column[:count] for column in found)


def aligned(count: int) -> int:
    """The next multiple of `ALIGNMENT`."""
    return -(-count // ALIGNMENT) * ALIGNMENT


class RowwiseLinear:
    """A linear map that is computed row by row, each as if there were no other: (B, values) -> (B, outputs).

    The product of whole matrices is not used: its last rows are computed by other kernels than the first ones, so that
    an image's result would depend on its row.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._width = weight.shape[1]
        self._missing = aligned(self._width) - self._width
        self._weight = F.pad(weight.detach(), (0, self._missing)).contiguous()  # (outputs, aligned values)
        self._bias = bias.detach().clone()

    def __call__(self, values: Tensor) -> Tensor:
        rows = F.pad(values, (0, self._missing)) if self._missing else _at_start(values)  # (B, aligned values)
        if len(rows) == 1:
            return F.linear(rows, self._weight, self._bias)
        return torch.cat([F.linear(row, self._weight, self._bias) for row in torch.split(rows, 1)])


def _at_start(values: Tensor) -> Tensor:
    """The values, copied where they are not in rows that begin at multiples of 64 bytes."""
    return values if values.is_contiguous() and values.data_ptr() % 64 == 0 else values.clone().contiguous()
