"""Bisection for the smallest share of units or weights that still holds a task's accuracy."""

from __future__ import annotations

from collections.abc import Callable


def bisect(holds: Callable[[float], bool], steps: int) -> float:
    """The smallest share in (0, 1] that was found to hold; 1 where none of those tried does.

    Parameters
    ----------
    holds
        Whether the accuracy holds when this share is kept; asked `steps` times, and expected to be monotonic.
    """
    low, high = 0.0, 1.0
    for _ in range(steps):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high
