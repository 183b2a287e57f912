"""Order of summation: convolutions that show whether two kernels sum up alike.

Sums are shown that depend much on their order: beside drawn terms there are large ones that cancel each other, and
while one of them is in a sum, what is added is rounded to its size. Drawn terms alone would not do: what bfloat16
kernels sum up in float32 is rounded to 8 bits, after which sums in two orders differ in one of 50,000 values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

SUMS = 128
"""Different sums by which two kernels are compared; of bfloat16, a quarter or more of them differ in two orders."""

LARGE = (15, 19)
"""Large terms are powers of two from and below these: a float32 sum keeps 24 bits, and a bfloat16 shows 8 of them."""

TOGETHER = 8
"""Channels of which one has large terms, so that each part of a sum has some."""


PERIOD = 65_537
"""Drawn values, which are repeated: a prime, so that no two maps or weights are alike."""


class ConvolutionKind(NamedTuple):
    """What a convolution is beside its weights."""

    channels: int
    units: int
    kernel: int
    stride: int
    padding: int
    dtype: torch.dtype


class ShownConvolution(NamedTuple):
    """A convolution by which kernels are compared."""

    weight: Tensor
    """(units, channels, kernel, kernel) in channels-last order."""
    bias: Tensor
    """(units,)."""
    maps: Tensor
    """(B, channels, H, W) float32."""


def shown(kind: ConvolutionKind, count: int, size: Sequence[int]) -> Iterator[ShownConvolution]:
    """Convolutions of a kind by which its kernels are compared, of so many maps of a size (H, W).

    The first one is of drawn values alone, all others of maps that are constant, where large terms cancel.
    """
    drawn, generator = _values(), torch.Generator().manual_seed(kind.units)
    for number in range(1 + -(-SUMS // (count * kind.units))):
        shapes = (kind.units, kind.channels, kind.kernel**2), (kind.units,), (count, kind.channels, *size)
        if number:
            shapes = (*shapes[:2], (count, kind.channels, 1, 1))
        weight, bias, maps = (_taken(drawn, shape, generator) for shape in shapes)
        if number:
            paired = 2 * (kind.channels // 2)
            maps[:, 1:paired:2] = maps[:, :paired:2]  # so that channels of 1x1 convolutions cancel as well
            _cancel(weight, generator)
        square = weight.view(kind.units, kind.channels, kind.kernel, kind.kernel).to(kind.dtype)
        last = square.contiguous(memory_format=torch.channels_last)
        yield ShownConvolution(last, bias.to(kind.dtype), maps.expand(-1, -1, *size))


def _cancel(weight: Tensor, generator: torch.Generator) -> None:
    """Put pairs of large values into weights (units, channels, places), which cancel where maps are constant."""
    units, channels, places = weight.shape
    pairs, wide = max(1, channels // TOGETHER), min(channels, TOGETHER)

    def below(end: int, start: int = 0) -> Tensor:
        return torch.randint(start, end, (units, pairs), generator=generator)

    unit, first = torch.arange(units)[:, None], wide * torch.arange(pairs)
    large = 2.0 ** below(LARGE[1], LARGE[0])
    if places > 1:
        channel, place = first + below(wide), below(places)
        weight[unit, channel, place] = large
        weight[unit, channel, (place + below(places, 1)) % places] = -large
    elif channels > 1:
        channel = first + 2 * below(wide // 2)
        weight[unit, channel, 0] = large
        weight[unit, channel + 1, 0] = -large


@cache
def _values() -> Tensor:
    """(PERIOD,) float32, normally distributed."""
    return torch.randn(PERIOD, generator=torch.Generator().manual_seed(0), dtype=torch.float32)


def _taken(drawn: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A copy of drawn values from anywhere, which is less work than drawing them."""
    count, first = math.prod(shape), int(torch.randint(PERIOD, (), generator=generator))
    return drawn.roll(-first).repeat(-(-count // PERIOD))[:count].view(*shape)
