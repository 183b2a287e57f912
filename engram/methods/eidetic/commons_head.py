"""Ridge head over the commons, weighed against the task's network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.data.class_balance import image_weights
from engram.nn.network import Engram
from engram.recognition import calibration
from engram.recognition.ridge import PackedGram, solve

START = (1.0, 2.0)
"""What the two weights start from: the network's logits as they are, and ridge scores, which lie around 0 and 1."""


def fitted(
    sums: Sequence[PackedGram],
    logits: Tensor,
    common: Sequence[Tensor],
    labels: Tensor,
    *,
    balanced: bool = False,
    solutions: Sequence[Tensor] | None = None,
) -> tuple[float, nn.Linear]:
    """What to multiply a network's logits with, and what to add to them, so that the sum answers best.

    The regression is of the task's own sums, and solved once.

    Parameters
    ----------
    sums
        The task's own over each of the commons, without the held-out images.
    logits
        (M, classes) of the network on held-out images.
    common
        (M, F) each: their features.
    labels
        (M,).
    balanced
        Whether all classes count alike. Of a small class's few images, most of which the regression has learned by
        heart, the held-out ones cannot tell how far it is to be trusted: it starts from as little as they are few.
    solutions
        (F + 1, classes) each: the regressions, where they are not those of a small ridge.

    Returns
    -------
    The factor, and a linear map from the commons to the classes.
    """
    weights = solutions or [solve([one], by_class=balanced) for one in sums]  # (F + 1, classes) each
    scores = [seen @ one[:-1] + one[-1] for seen, one in zip(common, weights, strict=True)]  # (M, classes) each
    given, own, right, counts = logits.double(), [one.double() for one in scores], labels, sums[0].counts
    start = torch.tensor([START[0], *[START[1] / len(sums)] * len(sums)], dtype=torch.float64)
    counted, images = None, float(len(right))
    if balanced:
        start[1:] *= counts.min() / counts.max()
        counted = image_weights(right, torch.ones(len(counts)))  # (M,)
        images = float(counted.sum().square() / counted.square().sum())  # as many as weigh as much (Kish 1965)

    def loss(free: Tensor) -> Tensor:
        factors = free.exp()
        sharp = factors[0] * given + factors[1] * own[0]
        for factor, one in zip(factors[2:], own[1:], strict=True):
            sharp = sharp + factor * one
        if counted is None:
            return F.cross_entropy(sharp, right)
        return (counted * F.cross_entropy(sharp, right, reduction="none")).mean()

    network, *commons = calibration.fitted(start.log(), loss, images).exp().tolist()
    joined = torch.cat([factor * one[:-1].T for factor, one in zip(commons, weights, strict=True)], 1)  # (classes, F)
    head = nn.Linear(joined.shape[1], joined.shape[0])
    with torch.no_grad():
        head.weight.copy_(joined)
        head.bias.copy_(sum(factor * one[-1] for factor, one in zip(commons, weights, strict=True)))
    return network, head


@torch.no_grad()
def attach(
    engram: Engram,
    sums: Sequence[PackedGram],
    logits: Tensor,
    common: Sequence[Tensor],
    labels: Tensor,
    *,
    balanced: bool,
    solutions: Sequence[Tensor] | None = None,
) -> Tensor:
    """Let an engram's head read the commons too, in place; what it then gives for the held-out images, (M, classes).

    The parameters are those of `fitted`.
    """
    factor, read = fitted(sums, logits, common, labels, balanced=balanced, solutions=solutions)
    found: Tensor = factor * logits + read(torch.cat(list(common), 1))
    engram.head.weight.mul_(factor)
    engram.head.bias.mul_(factor)
    engram.common = read.to(engram.head.weight.device)
    engram.freeze()
    return found
