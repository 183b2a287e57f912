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

SPARED = 0.003
"""Share of images that a larger share may surely cost at most, and is taken. With every task stage one has more classes
to tell apart by the same features, so that it errs more often at those of earlier tasks; a head never changes."""


def head_share(head: Tensor, ridge: Tensor, labels: Tensor, *, sparing: bool = False) -> float:
    """The share that a head's log-probabilities have, beside those of stage one (n, K), by held-out labels (n,).

    Parameters
    ----------
    sparing
        Whether a larger share is taken that surely costs at most `SPARED`, as learning does since its number 2.
    """
    given, beside = torch.log_softmax(head.double(), 1), torch.log_softmax(ridge.double(), 1)
    rights = {share: _right(given, beside, labels, share) for share in (EQUAL, *SHARES)}
    found, most = EQUAL, 0
    for share in SHARES:
        gained, lost = _compared(rights[share], rights[EQUAL])
        surely = gained - lost > CERTAIN * math.sqrt(gained + lost)
        # Of shares that are as good but for chance the largest: stage one was found to have little to say.
        if surely and gained - lost >= most - math.sqrt(most):
            found, most = share, max(most, gained - lost)
    for share in reversed(SHARES) if sparing else ():
        gained, lost = _compared(rights[share], rights[found])
        at_most = lost - gained + CERTAIN * math.sqrt(max(gained + lost, CERTAIN**2))
        if share > found and at_most <= SPARED * len(labels):
            return share
    return found


def _right(head: Tensor, ridge: Tensor, labels: Tensor, share: float) -> Tensor:
    right: Tensor = (share * head + (1 - share) * ridge).argmax(1) == labels
    return right


def _compared(right: Tensor, other: Tensor) -> tuple[int, int]:
    """How many images are right that are wrong in the other, and the other way round."""
    return int((right & ~other).sum()), int((other & ~right).sum())
