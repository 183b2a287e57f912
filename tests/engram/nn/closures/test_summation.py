"""Tests of convolutions that show the order of their sums."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.summation import SUMS, ConvolutionKind, ShownConvolution, alike, shown

COUNT = 4
TILE = 32
"""Channels that a kernel may add up before anything else."""
VECTOR = 16
"""Channels after which a kernel may go on in another way."""
KINDS = {
    "one channel": (ConvolutionKind(1, 5, 3, 1, 1, torch.bfloat16), (6, 6)),
    "image": (ConvolutionKind(3, 16, 3, 1, 1, torch.bfloat16), (8, 6)),
    "narrow": (ConvolutionKind(8, 8, 3, 1, 1, torch.bfloat16), (6, 6)),
    "with a tail": (ConvolutionKind(20, 24, 3, 1, 1, torch.bfloat16), (6, 6)),
    "odd": (ConvolutionKind(23, 40, 3, 1, 1, torch.bfloat16), (6, 6)),
    "wide with a tail": (ConvolutionKind(46, 40, 3, 2, 1, torch.bfloat16), (6, 6)),
    "wide": (ConvolutionKind(128, 32, 3, 2, 1, torch.bfloat16), (6, 6)),
    "wide, one place": (ConvolutionKind(256, 64, 3, 1, 1, torch.bfloat16), (1, 1)),
    "wide, four places": (ConvolutionKind(128, 64, 3, 1, 1, torch.bfloat16), (2, 2)),
    "wide, strided, four places": (ConvolutionKind(256, 96, 3, 2, 1, torch.bfloat16), (2, 2)),
    "wide, strided, nine places": (ConvolutionKind(128, 96, 3, 2, 1, torch.bfloat16), (3, 3)),
    "1x1": (ConvolutionKind(96, 48, 1, 1, 0, torch.bfloat16), (4, 4)),
    "wide 1x1": (ConvolutionKind(256, 128, 1, 2, 0, torch.bfloat16), (4, 4)),
    "odd 1x1": (ConvolutionKind(3, 2, 1, 1, 0, torch.bfloat16), (5, 5)),
}


def _run(kind: ConvolutionKind, one: ShownConvolution) -> Tensor:
    values = one.maps.to(kind.dtype).contiguous(memory_format=torch.channels_last)
    return F.conv2d(values, one.weight, one.bias, kind.stride, kind.padding)


def _ordered(one: ShownConvolution, order: Tensor) -> ShownConvolution:
    weight = one.weight[:, order].contiguous(memory_format=torch.channels_last)
    return one._replace(weight=weight, maps=one.maps[:, order])


def _run_in(kind: ConvolutionKind, order: Tensor, one: ShownConvolution) -> Tensor:
    return _run(kind, _ordered(one, order))


def _sums(kind: ConvolutionKind, one: ShownConvolution, weight: Tensor) -> Tensor:
    """In float64."""
    found = F.conv2d(one.maps.double(), weight.double(), None, kind.stride, kind.padding)
    return found + one.bias.double()[:, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", KINDS)
def test_large_terms_cancel(name: str, dtype: torch.dtype) -> None:
    kind, size = KINDS[name]
    kind = kind._replace(dtype=dtype)
    several = list(shown(kind, (COUNT, kind.channels, *size)))
    assert sum(COUNT * kind.units for _ in several[1:]) >= SUMS
    for number, one in enumerate(several):
        assert one.weight.dtype == one.bias.dtype == dtype
        assert one.weight.is_contiguous(memory_format=torch.channels_last)
        assert one.maps.shape == (COUNT, kind.channels, *size)
        large = one.weight.abs() > 2**10
        assert bool(large.any()) is (number > 0)
        cancelling, without = (_sums(kind, one, weight) for weight in (one.weight, one.weight.masked_fill(large, 0)))
        if kind.channels == 1 or (number % 2 == 0 and kind.kernel > 1):  # in places, which borders cut off
            middle = [(side - 1) // 2 for side in without.shape[2:]]
            cancelling, without = (sums[:, :, middle[0], middle[1]] for sums in (cancelling, without))
        torch.testing.assert_close(cancelling, without, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["odd", "wide with a tail", "wide 1x1"])
def test_the_first_and_the_last_channel_have_large_terms(name: str) -> None:
    kind, size = KINDS[name]
    some = torch.zeros(kind.channels, dtype=torch.bool)
    for number, one in enumerate(shown(kind, (COUNT, kind.channels, *size))):
        some |= (one.weight.abs() > 2**10).any(0).flatten(1).any(1)
        if number == 4:
            break
    assert some[-1]
    assert some.double().mean() > 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in KINDS if name not in ("one channel", "odd 1x1")])
def test_two_orders_are_told_apart(name: str, dtype: torch.dtype) -> None:
    """Of channels, and of all channels of a tile."""
    kind, size = KINDS[name]
    kind, shape = kind._replace(dtype=dtype), (COUNT, kind.channels, *size)
    orders = [torch.randperm(kind.channels, generator=torch.Generator().manual_seed(1))]
    if tail := kind.channels % VECTOR:
        orders.append(torch.cat([torch.arange(kind.channels - tail), kind.channels - 1 - torch.arange(tail)]))
    if kind.channels > 2 * TILE:  # two tiles have one order
        orders.append(torch.cat(torch.split(torch.arange(kind.channels), TILE)[::-1]))
    assert alike(kind, shape, partial(_run, kind), partial(_run, kind))
    for order in orders:
        assert not alike(kind, shape, partial(_run, kind), partial(_run_in, kind, order))
    if dtype is torch.bfloat16:
        one, *_ = shown(kind, shape)
        share = (_run(kind, one) != _run(kind, _ordered(one, orders[0]))).double().mean()
        assert share < 0.01, "drawn terms alone hardly tell"


def test_kernels_differ_where_nothing_is_told() -> None:
    kind, size = KINDS["narrow"]
    shape = (COUNT, kind.channels, *size)
    assert not alike(kind, shape, lambda one: torch.zeros(COUNT, 1), lambda one: torch.zeros(COUNT, 1))


def test_maps_may_have_fewer_channels_than_are_convolved() -> None:
    kind = KINDS["1x1"][0]
    for one in shown(kind, (COUNT, 60, 4, 4)):
        assert one.maps.shape[1] == 60
        assert one.weight.shape[1] == kind.channels
        assert not one.weight[:, 60:].any()
        turned = one.turned()
        assert not torch.equal(turned.weight, one.weight)
        for first, second in ((one, turned), (turned, one)):
            found, again = (
                F.conv2d(each.maps.double(), each.weight[:, :60].double(), each.bias.double())
                for each in (first, second)
            )
            torch.testing.assert_close(found, again, rtol=0, atol=1e-6)


def test_the_same_is_shown_every_time() -> None:
    kind, size = KINDS["image"]
    pairs = zip(*(shown(kind, (COUNT, kind.channels, *size)) for _ in range(2)), strict=True)
    assert all(torch.equal(*same) for pair in pairs for same in zip(*pair, strict=True))
