"""Tests of convolutions that show the order of their sums."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.summation import SUMS, ConvolutionKind, ShownConvolution, shown

COUNT, SIZE = 4, (6, 6)
KINDS = {
    "one channel": ConvolutionKind(1, 5, 3, 1, 1, torch.bfloat16),
    "image": ConvolutionKind(3, 16, 3, 1, 1, torch.bfloat16),
    "narrow": ConvolutionKind(8, 8, 3, 1, 1, torch.bfloat16),
    "wide": ConvolutionKind(128, 32, 3, 2, 1, torch.bfloat16),
    "1x1": ConvolutionKind(48, 96, 1, 1, 0, torch.bfloat16),
    "odd 1x1": ConvolutionKind(3, 2, 1, 1, 0, torch.bfloat16),
}


def _sums(kind: ConvolutionKind, one: ShownConvolution, weight: Tensor | None = None) -> Tensor:
    """In float64, of maps whose borders are cut off."""
    found = F.conv2d(one.maps.double(), (one.weight if weight is None else weight).double(), None, kind.stride)
    return found + one.bias.double()[:, None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_large_terms_cancel(kind: ConvolutionKind, dtype: torch.dtype) -> None:
    several = list(shown(kind._replace(dtype=dtype), COUNT, SIZE))
    assert sum(COUNT * kind.units for _ in several[1:]) >= SUMS
    for number, one in enumerate(several):
        assert one.weight.dtype == one.bias.dtype == dtype
        assert one.weight.is_contiguous(memory_format=torch.channels_last)
        assert one.maps.shape == (COUNT, kind.channels, *SIZE)
        large = one.weight.abs() > 2**10
        assert bool(large.any()) is (number > 0)
        without = one.weight.masked_fill(large, 0)
        torch.testing.assert_close(_sums(kind, one), _sums(kind, one, without), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["narrow", "wide", "1x1"])
def test_two_orders_give_other_sums(name: str, dtype: torch.dtype) -> None:
    kind = KINDS[name]._replace(dtype=dtype)
    turned = torch.randperm(kind.channels, generator=torch.Generator().manual_seed(1))
    for number, (weight, bias, maps) in enumerate(shown(kind, COUNT, SIZE)):
        values = maps.to(dtype)
        one, other = (
            F.conv2d(values[:, order], weight[:, order], bias, kind.stride)
            for order in (torch.arange(kind.channels), turned)
        )
        share = (one != other).double().mean().item()
        if number:
            assert share > 0.1
        elif dtype is torch.bfloat16:
            assert share < 0.02, "drawn terms alone do not tell"


def test_the_same_is_shown_every_time() -> None:
    kind = KINDS["image"]
    pairs = zip(shown(kind, COUNT, SIZE), shown(kind, COUNT, SIZE), strict=True)
    assert all(torch.equal(*same) for pair in pairs for same in zip(*pair, strict=True))
