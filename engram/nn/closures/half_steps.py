"""Half steps: batches between two shapes, in which images have the bytes of the larger one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engram.nn.closures.operations import Convolution, Operation
from engram.nn.shapes import SHAPES, TRIED, shape_of

HALF_STEPS = (3, 6, 12)
"""Batch sizes, each three quarters of the shape that such a batch is padded to."""

LEAST_WORK = 2**20
"""Multiply-adds an image from which on a network is tried: of smaller ones an image more costs next to nothing."""

MOST_WORK = 2**26
"""Multiply-adds an image up to which a network is tried: of larger ones the trial takes longer than it saves."""

MOST_SECONDS = 2.0
"""Time that the trials of a version may take; the tasks that are left go without."""

PERIOD = 65_537
"""Drawn values, which are repeated: a prime, so that no two rows of a map are alike."""

Sizes = tuple[int, ...]
"""The batch sizes that a network computes in, ascending: `SHAPES`, and the half steps that were proved for it."""


class LaidOut(NamedTuple):
    """How a batch lies in memory."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


def sizes(steps: Sequence[tuple[Operation, tuple[int, ...], int]], image: tuple[int, int, int]) -> Sizes:
    """The batch sizes of a network, each of whose half steps gives all images the bytes of its shape, here.

    It is so where the kernels of both sizes sum up in one order, which no library promises and which differs between
    kinds of convolutions. So each operation is tried, with the weights that answer, on drawn values in the order in
    memory that it is given, before anything is rectified: of a map of zeros everything would be alike.

    Parameters
    ----------
    steps
        Operations in order, where each reads and where it writes; the images are at place 0.
    image
        Channels, height and width of an image.
    """
    drawn = torch.randn(PERIOD, generator=torch.Generator().manual_seed(len(steps)), dtype=torch.float32)
    try:
        with torch.no_grad():
            proved = [half for half in HALF_STEPS if _alike(steps, image, half, drawn)]
    except (RuntimeError, MemoryError):  # there is no memory for it, which answers may need less of
        return SHAPES
    return tuple(sorted({*SHAPES, *proved}))


def _alike(
    steps: Sequence[tuple[Operation, tuple[int, ...], int]], image: tuple[int, int, int], half: int, drawn: Tensor
) -> bool:
    one = torch.empty(half, *image, dtype=torch.float32)
    places = {0: (_laid_out(one), _laid_out(one.new_empty(shape_of(half), *image)))}
    for operation, given, found in steps:
        run = operation.linear if isinstance(operation, Convolution) else operation
        left = TRIED
        while left > 0:
            # Values of its own, so that no operation is tried on what others make nearly constant.
            whole = [_filled(places[place][1], drawn, left) for place in given]
            part = [_filled(places[place][0], drawn, left) for place in given]
            several, fewer = run(*whole), run(*part)
            if not torch.equal(several[:half], fewer):
                return False
            left -= fewer.numel()
        places[found] = _laid_out(fewer), _laid_out(several)
    return True


def _laid_out(values: Tensor) -> LaidOut:
    return LaidOut(values.shape, values.stride(), values.dtype)


def _filled(like: LaidOut, drawn: Tensor, shift: int) -> Tensor:
    """Drawn values, of which a smaller batch has the first."""
    count = math.prod(like.shape)
    repeated = drawn.roll(shift).expand(-(-count // len(drawn)), -1).flatten()[:count]
    return torch.empty_strided(like.shape, like.strides, dtype=like.dtype).copy_(repeated.view(like.shape))
