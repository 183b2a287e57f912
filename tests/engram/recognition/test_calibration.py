"""Tests of calibration beside a slow search for the same optimum."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from engram.recognition.calibration import PRIOR_IMAGES, fitted


def searched(start: Tensor, loss: object, images: int) -> Tensor:
    """Coordinate after coordinate, with ever smaller steps."""
    assert callable(loss)

    def total(at: Tensor) -> float:
        return float(loss(at)) + PRIOR_IMAGES / images * float(((at - start) ** 2).sum())

    at, step = start.clone(), 1.0
    while step > 1e-9:
        near = [at + sign * step * axis for axis in torch.eye(len(at), dtype=at.dtype) for sign in (-1, 1)]
        best = min(near, key=total)
        if total(best) < total(at):
            at = best
        else:
            step /= 2
    return at


@pytest.mark.parametrize("images", [4, 30, 400])
def test_the_fit_is_where_a_slow_search_ends(images: int) -> None:
    generator = torch.Generator().manual_seed(images)
    odds = torch.randn(images, generator=generator, dtype=torch.float64)
    truth = (odds + torch.randn(images, generator=generator, dtype=torch.float64) > 0.3).double()

    def loss(free: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(free[0].exp() * odds + free[1], truth)

    start = torch.tensor([0.5, -1.0], dtype=torch.float64)
    assert torch.allclose(fitted(start, loss, images), searched(start, loss, images), atol=1e-4)
    assert start.tolist() == [0.5, -1.0]


def test_what_has_no_optimum_stays_near_the_start() -> None:
    odds = torch.tensor([-2.0, -1.0, 1.0, 2.0], dtype=torch.float64)

    def loss(free: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(free[0].exp() * odds, (odds > 0).double())

    few, many = (float(fitted(torch.zeros(1, dtype=torch.float64), loss, images)) for images in (4, 4000))
    assert 0 < few < 0.1 < many < 10
