"""Learning curves: losses and held-out accuracy by epoch, as a learning report keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MOST_POINTS = 500
"""Points that a report keeps of all curves together."""

EpochFigures = tuple[int, float, float | None, float | None]
"""Epoch, training loss, held-out loss and held-out accuracy."""


class CurvePoint(NamedTuple):
    """One epoch of one phase of training."""

    phase: str
    epoch: int
    """From 1; each run of a phase begins anew."""
    loss: float
    """The running mean of the steps' losses, at the epoch's end."""
    held_out_loss: float | None
    """Mean cross-entropy on held-out images after the epoch; None where a method does not look at these."""
    held_out_accuracy: float | None
    """0 to 1, likewise; of classes of unequal size the mean over the classes."""


def thinned(points: Sequence[CurvePoint], most: int = MOST_POINTS) -> list[dict[str, object]]:
    """The points as JSON; of more than `most` so many, evenly spread, with the first and the last one."""
    if len(points) > most:
        points = [points[round(number * (len(points) - 1) / (most - 1))] for number in range(most)]
    return [point._asdict() for point in points]
