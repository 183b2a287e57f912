"""Ridge head over the commons, weighed against the task's network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.recognition import calibration
from engram.recognition.ridge import PackedGram, solve

START = (1.0, 2.0)
"""What the two weights start from: the network's logits as they are, and ridge scores, which lie around 0 and 1."""


def fitted(sums: PackedGram, logits: Tensor, common: Tensor, labels: Tensor) -> tuple[float, nn.Linear]:
    """What to multiply a network's logits with, and what to add to them, so that the sum answers best.

    The regression is solved from the task's own sums, once: nothing that comes later changes it.

    Parameters
    ----------
    sums
        The task's own, without the held-out images.
    logits
        (M, classes) of the network on held-out images.
    common
        (M, F): their features of the commons.
    labels
        (M,).

    Returns
    -------
    The factor, and a linear map from the commons to the classes.
    """
    weights = solve([sums])  # (F + 1, classes)
    scores = common @ weights[:-1] + weights[-1]  # (M, classes)
    given, own, right = logits.double(), scores.double(), labels
    start = torch.tensor(START, dtype=torch.float64).log()

    def loss(free: Tensor) -> Tensor:
        factors = free.exp()
        return F.cross_entropy(factors[0] * given + factors[1] * own, right)

    network, commons = calibration.fitted(start, loss, len(right)).exp().tolist()
    head = nn.Linear(len(weights) - 1, weights.shape[1])
    with torch.no_grad():
        head.weight.copy_(commons * weights[:-1].T)
        head.bias.copy_(commons * weights[-1])
    return network, head
