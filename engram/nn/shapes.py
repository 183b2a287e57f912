"""Fixed batch shapes, in which an answer is the same bytes whatever its neighbours and its row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TypeVar

import numpy
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Rows = NDArray[numpy.int64]
"""Numbers of some images of a batch."""

SHAPES = (1, 2, 4, 8, 16)
"""Batch sizes that staged models compute in, and no others but those that were tried to have the same bytes."""

ALIGNMENT = 16
"""Values in 64 bytes: kernels read rows that begin there in one and the same way."""

LEAST_PRODUCT = 400
"""Multiply-adds from which on PyTorch leaves products of many pairs of matrices to the library, as it does of one."""

TRIED = 512
"""Values by which it is found out whether two ways of computing agree."""

Computed = TypeVar("Computed", Tensor, tuple[Tensor, ...])


def in_shapes(
    images: Tensor, run: Callable[[Tensor], Computed], rows: Rows | None = None, sizes: Sequence[int] = SHAPES
) -> Computed:
    """What `run` gives for images, computed in no other batch size than those of `SHAPES`, or of `sizes`.

    Parameters
    ----------
    images
        (B, ...): cut into parts of the largest shape, the rest being padded with zeros up to the next one.
    run
        Gives a tensor, or a tuple of tensors, with a row for each image.
    rows
        Which images, where it is not all of them; shapes are then filled with images again.
    sizes
        Ascending, where `run` is known to give images the same bytes in more sizes than `SHAPES`.
    """
    largest = SHAPES[-1]
    if rows is None:
        parts = [_computed(run, part, sizes) for part in torch.split(images, largest)]
    else:
        parts = [_chosen(run, images, rows[first : first + largest], sizes) for first in range(0, len(rows), largest)]
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(parts)  # (B, ...)
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _computed(run: Callable[[Tensor], Computed], part: Tensor, sizes: Sequence[int]) -> Computed:
    count = len(part)
    if count in sizes and part.data_ptr() % 64 == 0 and part.is_contiguous():
        return run(part)
    padded = part.new_zeros(shape_of(count, sizes), *part.shape[1:])  # a place of its own, and so aligned
    padded[:count] = part
    return _first(run(padded), count)


def _chosen(run: Callable[[Tensor], Computed], images: Tensor, rows: Rows, sizes: Sequence[int]) -> Computed:
    count = len(rows)
    filled = torch.from_numpy(rows if count in sizes else rows.take(range(shape_of(count, sizes)), mode="clip"))
    return _first(run(images.index_select(0, filled.to(images.device))), count)


def shape_of(count: int, sizes: Sequence[int] = SHAPES) -> int:
    """The shape that so many images are computed in."""
    return next(size for size in sizes if size >= count)


def _first(found: Computed, count: int) -> Computed:
    """The first rows of what was computed."""
    if isinstance(found, Tensor):
        return found if found.shape[0] == count else found[:count]
    return found if found[0].shape[0] == count else tuple(column[:count] for column in found)


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
        self._turned = self._weight.T[None]  # (1, aligned values, outputs)
        self._cpu = self._weight.device.type == "cpu"

    def __call__(self, values: Tensor) -> Tensor:
        rows = F.pad(values, (0, self._missing)) if self._missing else _at_start(values)  # (B, aligned values)
        count = rows.shape[0]
        if count == 1:
            return F.linear(rows, self._weight, self._bias)
        if self._cpu and _alike(count, *self._weight.shape, torch.get_num_threads()):
            return _at_once(rows, self._turned, self._bias)
        return torch.cat([F.linear(row, self._weight, self._bias) for row in torch.split(rows, 1)])


def _at_once(rows: Tensor, turned: Tensor, bias: Tensor) -> Tensor:
    """(B, outputs): as many products as rows (B, values), with a turned weight (1, values, outputs), in one call."""
    return torch.baddbmm(bias, rows.unsqueeze(1), turned.expand(rows.shape[0], -1, -1)).squeeze(1)


@cache
def _alike(count: int, outputs: int, values: int, threads: int) -> bool:
    """Whether so many rows at once have the bytes that each has by itself, on this machine with so many threads.

    It is so where a product of one row is computed by one kernel however many there are, which no library promises.
    """
    if outputs * values < LEAST_PRODUCT:
        return False
    del threads  # what is found out counts for these alone
    generator = torch.Generator().manual_seed(count)
    drawn = partial(torch.randn, generator=generator, dtype=torch.float32)
    with torch.autocast("cpu", enabled=False):  # a step of training may be under way, in mixed precision
        for _ in range(1 + TRIED // (count * outputs)):
            weight, bias = drawn(outputs, values), drawn(outputs)
            rows = drawn(count, values)
            each = torch.cat([F.linear(row, weight, bias) for row in torch.split(rows, 1)])
            if not torch.equal(_at_once(rows, weight.T[None], bias), each):
                return False
    return True


def _at_start(values: Tensor) -> Tensor:
    """The values, copied where they are not in rows that begin at multiples of 64 bytes."""
    return values if values.is_contiguous() and values.data_ptr() % 64 == 0 else values.clone().contiguous()
