"""Half steps: batches between two shapes, in which images have the bytes of the larger one."""

from __future__ import annotations

from collections.abc import Sequence

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

PERIOD = 65_537
"""Drawn values, which are repeated: a prime, so that no two rows of a map are alike."""

Sizes = tuple[int, ...]
"""The batch sizes that a network computes in, ascending: `SHAPES`, and the half steps that were proved for it."""


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
    with torch.no_grad():
        proved = [half for half in HALF_STEPS if _alike(steps, image, half, drawn)]
    return tuple(sorted({*SHAPES, *proved}))


def _alike(
    steps: Sequence[tuple[Operation, tuple[int, ...], int]], image: tuple[int, int, int], half: int, drawn: Tensor
) -> bool:
    whole = {0: torch.empty(shape_of(half), *image, dtype=torch.float32)}
    part = {0: torch.empty(half, *image, dtype=torch.float32)}
    for operation, given, found in steps:
        run = operation.linear if isinstance(operation, Convolution) else operation
        left = TRIED
        while left > 0:
            # Values of its own, so that no operation is tried on what others make nearly constant.
            for place in given:
                _fill(whole[place], drawn, left)
                part[place].copy_(whole[place][:half])
            several, fewer = (run(*[values[place] for place in given]) for values in (whole, part))
            if not torch.equal(several[:half], fewer):
                return False
            left -= fewer.numel()
        whole[found], part[found] = torch.empty_like(several), torch.empty_like(fewer)
    return True


def _fill(values: Tensor, drawn: Tensor, shift: int) -> None:
    count = values.numel()
    repeated = drawn.roll(shift).expand(-(-count // len(drawn)), -1).flatten()[:count]
    values.copy_(repeated.view(values.shape))
