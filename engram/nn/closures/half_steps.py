"""Half steps: batches between two shapes, in which images have the bytes of the larger one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.operations import Convolution, Dense, Operation, as_read
from engram.nn.closures.prepacked_weights import MOST_KINDS
from engram.nn.closures.summation import PERIOD, ConvolutionKind, ShownConvolution, alike
from engram.nn.shapes import SHAPES, TRIED, RowwiseLinear, shape_of

HALF_STEPS = (3, 6, 12)
"""Batch sizes, each three quarters of the shape that such a batch is padded to."""

LEAST_WORK = 2**20
"""Multiply-adds an image from which on a network is tried: of smaller ones an image more costs next to nothing."""

MOST_WORK = 2**26
"""Multiply-adds an image up to which a network is tried: of larger ones the trial takes longer than it saves."""

MOST_SECONDS = 2.0
"""Time of the trials of a version, and of its prepacking, after which no further task is begun."""

Sizes = tuple[int, ...]
"""The batch sizes that a network computes in, ascending: `SHAPES`, and the half steps that were proved for it."""


class LaidOut(NamedTuple):
    """How a batch lies in memory."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype


Both = tuple[LaidOut, LaidOut]
"""A part of a batch, and the whole one."""


def sizes(steps: Sequence[tuple[Operation, tuple[int, ...], int]], image: tuple[int, int, int]) -> Sizes:
    """The batch sizes of a network, each of whose half steps gives all images the bytes of its shape, here.

    It is so where the kernels of both sizes sum up in one order, which no library promises and which differs between
    kinds of convolutions. So each kind is tried on sums that depend much on their order, and any other operation on
    drawn values, in the order in memory that it is given.

    Parameters
    ----------
    steps
        Operations in order, where each reads and where it writes; the images are at place 0.
    image
        Channels, height and width of an image.
    """
    try:
        drawn = torch.randn(PERIOD, generator=torch.Generator().manual_seed(len(steps)), dtype=torch.float32)
        with torch.no_grad():
            proved = [half for half in HALF_STEPS if _alike(steps, image, half, drawn)]
    except (RuntimeError, MemoryError):  # there is no memory for it, which answers may need less of
        return SHAPES
    return tuple(sorted({*SHAPES, *proved}))


def _alike(
    steps: Sequence[tuple[Operation, tuple[int, ...], int]], image: tuple[int, int, int], half: int, drawn: Tensor
) -> bool:
    one = torch.empty(half, *image, dtype=torch.float32)
    places: dict[int, Both] = {0: (_laid_out(one), _laid_out(one.new_empty(shape_of(half), *image)))}
    for operation, given, found in steps:
        read = [places[place] for place in given]
        if isinstance(operation, Convolution):
            alike = _convolved(operation.kind, *read[0], torch.get_num_threads())
        else:
            alike = _computed(operation, read, half, drawn)
        if alike is None:
            return False
        places[found] = alike
    return True


def _computed(operation: Operation, read: Sequence[Both], half: int, drawn: Tensor) -> Both | None:
    """How what an operation gives lies in memory, for a part of a batch and for the whole one, if they are alike."""
    tried = TRIED if isinstance(operation, Dense | RowwiseLinear) else 0  # each row is computed by itself
    while True:
        # Values of its own, so that no operation is tried on what others make nearly constant.
        fewer, several = (operation(*(_filled(both[one], drawn, tried) for both in read)) for one in (0, 1))
        if not torch.equal(several[:half], fewer):
            return None
        tried += fewer.numel()
        if tried >= TRIED:
            return _laid_out(fewer), _laid_out(several)


@lru_cache(MOST_KINDS)
def _convolved(kind: ConvolutionKind, part: LaidOut, whole: LaidOut, threads: int) -> Both | None:
    """The same of a kind of convolution, before it is rectified: of zeros everything would be alike.

    Parameters
    ----------
    threads
        Those there are: what is found out counts for these alone.
    """
    del threads
    found: dict[LaidOut, LaidOut] = {}

    def convolved(like: LaidOut, shown: ShownConvolution) -> Tensor:
        values = as_read(_placed(shown.maps[: like.shape[0]], like), kind)
        maps = F.conv2d(values, shown.weight, shown.bias, kind.stride, kind.padding)
        found[like] = _laid_out(maps)
        return maps

    if not alike(kind, whole.shape, partial(convolved, whole), partial(convolved, part)):
        return None
    return found[part], found[whole]


def _laid_out(values: Tensor) -> LaidOut:
    return LaidOut(values.shape, values.stride(), values.dtype)


def _filled(like: LaidOut, drawn: Tensor, shift: int) -> Tensor:
    """Drawn values, of which a smaller batch has the first."""
    count = math.prod(like.shape)
    repeated = drawn.roll(shift) if shift else drawn
    repeated = repeated.expand(-(-count // PERIOD), -1).flatten()[:count]
    return _placed(repeated.view(like.shape), like)


def _placed(values: Tensor, like: LaidOut) -> Tensor:
    """Values in a type and order in memory."""
    return torch.empty_strided(like.shape, like.strides, dtype=like.dtype).copy_(values)
