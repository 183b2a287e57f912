"""Order of summation: convolutions that show whether two kernels sum up alike.

Sums are shown that depend much on their order: beside drawn terms there are large ones that cancel each other, and
while one of them is in a sum, what is added is rounded to its size. Drawn terms alone would not do: what bfloat16
kernels sum up in float32 is rounded to 8 bits, after which sums in two orders differ in one of some thousand values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import product
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

SUMS = 128
"""Different sums in each way by which two kernels are compared at least."""

LEAST_TOLD = 64
"""Sums that have to come out otherwise in another order: fewer tell nothing, and kernels count as different."""

MOST_ROUNDS = 8
"""Times that as many sums are shown until so many have."""

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


Way = Callable[[Tensor, Tensor, Tensor, torch.Generator], None]
"""From drawn weights (units, channels, places), maps (B, channels, H, W) and places to those that are shown."""


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
    told, least = 0, 1 + _rounds(kind, shape[0]) * len(_ways(kind, shape))
    for number, convolution in enumerate(shown(kind, shape), start=1):
        found, compared = one(convolution), other(convolution)
        count = min(len(found), len(compared))
        if not torch.equal(found[:count], compared[:count]):
            return False
        told += int((one(convolution.turned())[:count] != found[:count]).sum())
        if number >= least and (told >= LEAST_TOLD or shape[1] <= PAIR):
            return True
    return shape[1] <= PAIR


def shown(kind: ConvolutionKind, shape: Sequence[int]) -> Iterator[ShownConvolution]:
    """Convolutions of a kind by which its kernels are compared, more than are needed where they tell enough.

    The first one is of drawn values. In the others large terms cancel: in turn those of two channels, whose maps are
    the same, and those of two places of a channel, whose map is constant.
    """
    drawn, generator = _values(), torch.Generator().manual_seed(kind.units)
    count, read, *size = shape
    places = torch.tensor(_places(kind, size))
    ways: list[Way] = [_nothing, *_ways(kind, shape) * (MOST_ROUNDS * _rounds(kind, count))]
    for way in ways:
        map_size = (1, 1) if way is _in_places else size
        shapes = (kind.units, read, kind.kernel**2), (kind.units,), (count, read, *map_size)
        weight, bias, maps = (_taken(drawn, shape, generator) for shape in shapes)
        way(weight, maps, places, generator)
        square = F.pad(weight.view(kind.units, read, kind.kernel, -1), (0, 0, 0, 0, 0, kind.channels - read))
        last = square.to(kind.dtype).contiguous(memory_format=torch.channels_last)
        yield ShownConvolution(last, bias.to(kind.dtype), maps.expand(-1, -1, *size))


def _rounds(kind: ConvolutionKind, count: int) -> int:
    """Convolutions of each way that are shown at least."""
    return -(-SUMS // (count * kind.units))


def _ways(kind: ConvolutionKind, shape: Sequence[int]) -> list[Way]:
    """Ways in which large terms can cancel: of one product, with nothing but a bias to be added to, there is none."""
    return [*[_in_channels] * (shape[1] > 1), *[_in_places] * (len(_places(kind, shape[2:])) > 1)]


def _places(kind: ConvolutionKind, size: Sequence[int]) -> list[int]:
    """Places of the kernel that lie within a map where it is put on the middle."""
    inside = []
    for side in size:
        middle = ((side + 2 * kind.padding - kind.kernel) // kind.stride) // 2 * kind.stride - kind.padding
        inside.append([place for place in range(kind.kernel) if 0 <= middle + place < side])
    return [kind.kernel * line + column for line, column in product(*inside)]


def _nothing(weight: Tensor, maps: Tensor, places: Tensor, generator: torch.Generator) -> None:
    """Leave weights as they are."""


def _in_channels(weight: Tensor, maps: Tensor, places: Tensor, generator: torch.Generator) -> None:
    """Put large values that cancel into pairs of channels of weights (units, channels, places), far from each other.

    Within 32 channels, kernels of some processors sum up pairs before anything else. Of every other unit the last
    channel has one, which kernels may add up otherwise than those that fill whole vectors.
    """
    read = maps.shape[1]
    half = read // 2
    maps[:, read - half :] = maps[:, :half]
    unit, channel, below = _pairs(len(weight), half, generator)
    channel[::2, -1] = half - 1
    place, large = places[below(high=len(places))], _large(below)
    weight[unit, channel, place] = large
    weight[unit, channel + read - half, place] = -large


def _in_places(weight: Tensor, maps: Tensor, places: Tensor, generator: torch.Generator) -> None:
    """Put large values that cancel into pairs of places of weights (units, channels, places)."""
    unit, channel, below = _pairs(len(weight), weight.shape[1], generator)
    place, large = below(high=len(places)), _large(below)
    weight[unit, channel, places[place]] = large
    weight[unit, channel, places[(place + 1 + below(high=len(places) - 1)) % len(places)]] = -large


def _pairs(units: int, channels: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Callable[..., Tensor]]:
    """Units (units, 1), for each of them one of every few channels (units, pairs), and what draws as many numbers."""
    pairs = -(-channels // TOGETHER)
    below = partial(torch.randint, size=(units, pairs), generator=generator)
    first = torch.arange(pairs + 1) * channels // pairs
    channel = first[:-1] + below(high=channels * TOGETHER) % first.diff()
    return torch.arange(units)[:, None], channel, below


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
