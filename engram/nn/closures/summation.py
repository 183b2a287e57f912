"""Order of summation: convolutions that show whether two kernels sum up alike.

Sums are shown that depend much on their order: beside drawn terms there are large ones that cancel each other, and
while one of them is in a sum, what is added is rounded to its size. Drawn terms alone would not do: what bfloat16
kernels sum up in float32 is rounded to 8 bits, after which sums in two orders differ in one of some thousand values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

SUMS = 128
"""Different sums by which two kernels are compared."""

LEAST_TOLD = 0.02
"""Share of these sums that has to come out otherwise in another order: else they tell nothing, and kernels differ."""

PAIR = 2
"""Channels up to which nothing is shown by their order: some kernels add up pairs of them before anything else."""

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
    """(B, channels read, H, W) float32."""

    def turned(self) -> Self:
        """The same sums, their terms in another order."""
        read = self.maps.shape[1]
        order = torch.randperm(read, generator=torch.Generator().manual_seed(read))
        weight = self.weight.clone(memory_format=torch.channels_last)
        weight[:, :read] = self.weight[:, order]
        return self._replace(weight=weight, maps=self.maps[:, order])


def alike(
    kind: ConvolutionKind,
    shape: Sequence[int],
    one: Callable[[ShownConvolution], Tensor],
    other: Callable[[ShownConvolution], Tensor],
) -> bool:
    """Whether two ways to compute a convolution sum up in one order, as far as either gives images.

    Parameters
    ----------
    shape
        Of the maps (B, channels read, H, W); if they are fewer than those of the kind, the others are zeros.
    """
    told = summed = 0
    for convolution in shown(kind, shape):
        found, compared = one(convolution), other(convolution)
        count = min(len(found), len(compared))
        if not torch.equal(found[:count], compared[:count]):
            return False
        told += int((one(convolution.turned()) != found).sum())
        summed += found.numel()
    return shape[1] <= PAIR or told >= LEAST_TOLD * summed


def shown(kind: ConvolutionKind, shape: Sequence[int]) -> Iterator[ShownConvolution]:
    """Convolutions of a kind by which its kernels are compared.

    The first one is of drawn values. In the others large terms cancel: first those of two channels, whose maps are the
    same, then those of two places of a channel, whose map is constant.
    """
    drawn, generator = _values(), torch.Generator().manual_seed(kind.units)
    count, read, *size = shape
    ways = [_nothing, *[_in_channels] * (read > 1), *[_in_places] * (kind.kernel > 1)]
    # A product alone, with nothing but a bias to be added to, has one order.
    for way in ways[:1] + [way for way in ways[1:] for _ in range(-(-SUMS // (count * kind.units)))]:
        constant = way is _in_places
        shapes = (kind.units, read, kind.kernel**2), (kind.units,), (count, read, *((1, 1) if constant else size))
        weight, bias, maps = (_taken(drawn, shape, generator) for shape in shapes)
        way(weight, maps, generator)
        square = F.pad(weight.view(kind.units, read, kind.kernel, -1), (0, 0, 0, 0, 0, kind.channels - read))
        last = square.to(kind.dtype).contiguous(memory_format=torch.channels_last)
        yield ShownConvolution(last, bias.to(kind.dtype), maps.expand(-1, -1, *size))


def _nothing(weight: Tensor, maps: Tensor, generator: torch.Generator) -> None:
    """Leave weights as they are."""


def _in_channels(weight: Tensor, maps: Tensor, generator: torch.Generator) -> None:
    """Put large values that cancel into pairs of channels of weights (units, channels, places), far from each other.

    Within 32 channels, kernels of some processors sum up pairs before anything else.
    """
    half = maps.shape[1] // 2
    maps[:, half : 2 * half] = maps[:, :half]
    pairs, wide = max(1, half // TOGETHER), min(half, TOGETHER)
    below = partial(torch.randint, size=(len(weight), pairs), generator=generator)
    unit, channel = torch.arange(len(weight))[:, None], wide * torch.arange(pairs) + below(high=wide)
    place, large = below(high=weight.shape[2]), _large(below)
    weight[unit, channel, place] = large
    weight[unit, channel + half, place] = -large


def _in_places(weight: Tensor, maps: Tensor, generator: torch.Generator) -> None:
    """Put large values that cancel into pairs of places of weights (units, channels, places)."""
    units, channels, places = weight.shape
    pairs, wide = max(1, channels // TOGETHER), min(channels, TOGETHER)
    below = partial(torch.randint, size=(units, pairs), generator=generator)
    unit, channel = torch.arange(units)[:, None], wide * torch.arange(pairs) + below(high=wide)
    place, large = below(high=places), _large(below)
    weight[unit, channel, place] = large
    weight[unit, channel, (place + 1 + below(high=places - 1)) % places] = -large


def _large(below: Callable[..., Tensor]) -> Tensor:
    return torch.exp2(below(low=LARGE[0], high=LARGE[1]).to(torch.float32))


@cache
def _values() -> Tensor:
    """(2 * PERIOD,) float32, normally distributed, the second half as the first."""
    return torch.randn(PERIOD, generator=torch.Generator().manual_seed(0), dtype=torch.float32).repeat(2)


def _taken(drawn: Tensor, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """A copy of drawn values from anywhere, which is less work than drawing them."""
    count, first = math.prod(shape), int(torch.randint(PERIOD, (), generator=generator))
    period = drawn[first : first + min(count, PERIOD)]
    return period.repeat(-(-count // PERIOD))[:count].view(*shape)
