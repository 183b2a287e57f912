"""Head share: how much a task's own network counts beside stage one between the task's classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

EQUAL = 0.5
"""Share of the head in the log-probabilities of a task's classes; the other is stage one's. They err at other images,
and the mean of their logs mostly errs less often than either."""

SHARES = (0.75, 1.0)
"""Taken where stage one has little to say, as of images without shapes."""

CERTAIN = 2.0
"""Standard deviations by which a share has to be better than equal ones (McNemar 1947)."""


def head_share(head: Tensor, ridge: Tensor, labels: Tensor) -> float:
    """The share that a head's log-probabilities have, beside those of stage one (n, K), by held-out labels (n,)."""
    given, beside = torch.log_softmax(head.double(), 1), torch.log_softmax(ridge.double(), 1)
    usual = _right(given, beside, labels, EQUAL)
    found, most = EQUAL, 0
    for share in SHARES:
        right = _right(given, beside, labels, share)
        gained, lost = int((right & ~usual).sum()), int((usual & ~right).sum())
        surely = gained - lost > CERTAIN * math.sqrt(gained + lost)
        # Of shares that are as good but for chance the largest: stage one was found to have little to say.
        if surely and gained - lost >= most - math.sqrt(most):
            found, most = share, max(most, gained - lost)
    return found


def _right(head: Tensor, ridge: Tensor, labels: Tensor, share: float) -> Tensor:
    right: Tensor = (share * head + (1 - share) * ridge).argmax(1) == labels
    return right
