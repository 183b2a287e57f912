"""Tests of SHARC's channel saliency."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engram.methods.sharc.saliency import kept_channels, mask, saliency


def _classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(5 * 4, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def test_saliency_is_the_mean_gradient_of_the_true_logit_of_each_image_by_itself() -> None:
    """Against central differences, one number of one map at a time."""
    classifier = _classifier()
    maps = torch.rand(4, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2])
    found = saliency(maps, labels, classifier)
    step = 1e-6
    for row, label in enumerate(labels.tolist()):
        for channel in range(5):
            total = 0.0
            for place in range(4):
                logits = []
                for sign in (1, -1):
                    moved = maps[row : row + 1].clone()
                    moved[0, channel, place] += sign * step
                    with torch.no_grad():
                        logits.append(float(classifier(moved)[0, label]))
                total += (logits[0] - logits[1]) / (2 * step)
            assert float(found[row, channel]) == pytest.approx(total / 4, rel=1e-5, abs=1e-9)


def test_saliency_leaves_no_gradient_behind() -> None:
    classifier = _classifier()
    with torch.no_grad():
        saliency(torch.rand(2, 5, 4, dtype=torch.float64), torch.tensor([0, 1]), classifier)
    assert all(parameter.grad is None for parameter in classifier.parameters())


@pytest.mark.parametrize(("quantile", "kept"), [(0.0, 10), (0.3, 7), (0.5, 5), (0.8, 2), (0.9, 1), (0.99, 1)])
def test_the_channels_under_the_quantile_are_dropped(quantile: float, kept: int) -> None:
    scores = torch.tensor([[float(value) for value in (3, -9, 5, 0, 8, 1, 7, -2, 4, 6)], [1.0] * 10])
    found = mask(scores, quantile)
    assert kept_channels(10, quantile) == kept
    assert found.sum(1).tolist() == [kept, kept]
    assert scores[0][found[0]].min() >= (scores[0][~found[0]].max() if kept < 10 else -torch.inf)
    assert found[1, :kept].all(), "of equals, the first stay"
