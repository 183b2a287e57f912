"""Tests of the ridges over features of networks: thousands that repeat each other, of few images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.nn.commons.pretrained_commons import STEP
from engram.nn.commons.ridges import OF_NETWORKS
from engram.recognition.ridge import solve
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.score_space import RidgeSolution, best
from engram.recognition.staged.totals import Totals


def repeating(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (count, 300) on a network's grid, all of them of twelve values and noise, and labels (count,)."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(12, 300, generator=generator)
    generator.manual_seed(seed)
    labels = torch.arange(count) % 2
    hidden = torch.randn(count, 12, generator=generator) + 0.6 * (labels[:, None] * 2 - 1)
    features = hidden @ spread / 3 + 0.7 * torch.randn(count, 300, generator=generator)
    return (features / STEP).round() * STEP, labels


@pytest.mark.parametrize("count", [40, 300, 1200])
def test_the_ridge_is_that_of_least_error_and_large_enough_for_few_images(count: int) -> None:
    features, labels = repeating(count, 1)
    sums = ExactSums.empty(300, 2, STEP).plus(features, labels)
    totals = Totals.empty(300, STEP).plus("a", sums)
    found = best(totals, OF_NETWORKS)
    second, means = totals.matrix(), totals.means()
    errors = [RidgeSolution.of(second, means, count, ridge, totals.rounding).error for ridge in OF_NETWORKS.values]
    assert found.error == min(errors) < torch.inf
    more, true = repeating(2000, 2)
    more = torch.cat([more, torch.ones(2000, 1)], 1)

    def right(weights: Tensor) -> float:
        return float(((more @ weights).argmax(1) == true).double().mean())

    assert right(found.weights.float()) >= right(solve([sums.packed()])) + (0.1 if count == 300 else 0.0)
