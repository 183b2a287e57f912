"""Calibration on held-out images: a few weights fitted by L-BFGS, and a softmax temperature."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS

from engram.runtime import uncompiled

STEPS = 60
"""Of L-BFGS, at most."""

PRIOR_IMAGES = 5.0
"""Images that the start is worth. Images told apart without a fault are explained the better, the larger a factor is:
without a pull there would be no optimum."""


def fitted(start: Tensor, loss: Callable[[Tensor], Tensor], images: float) -> Tensor:
    """What makes a loss least, by L-BFGS in float64, held back towards where it starts.

    Parameters
    ----------
    start
        (n,) float64.
    loss
        The mean over the images, for (n,); gradients go through it.
    images
        How many they are: against few, the start counts for more.

    Returns
    -------
    (n,) float64.
    """
    return minimised(start, lambda free: loss(free) + (free - start).square().sum() * (PRIOR_IMAGES / images))


def minimised(start: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """What makes a loss least, (n,) float64, by L-BFGS from `start` (n,)."""
    free = start.clone().requires_grad_(True)
    solver = uncompiled(LBFGS)([free], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        total = loss(free)
        total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return total

    solver.step(closure)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return free.detach()


def fitted_temperature(logits: Tensor, labels: Tensor) -> Tensor:
    """The temperature that minimises the cross-entropy of logits (M, classes) on labels (M,)."""
    grid = torch.logspace(-1, 1, 41)
    losses = torch.stack([cross_entropy(logits / value, labels) for value in grid])
    return grid[losses.argmin()]
