"""One-sided Welch test of two means, on running moments."""

from __future__ import annotations

import math


class Moments:
    """Running count, mean and variance of numbers in [0, 1]; the numbers are not kept."""

    __slots__ = ("_squares", "_total", "count")

    def __init__(self) -> None:
        self.count = 0
        self._total = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Count one more number."""
        self.count += 1
        self._total += value
        self._squares += value * value

    @property
    def mean(self) -> float:
        """0 when there are none."""
        return self._total / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """The unbiased estimate; 0 for fewer than two."""
        if self.count < 2:
            return 0.0
        return max(0.0, (self._squares - self._total * self.mean) / (self.count - 1))


def welch(newest: Moments, reference: Moments, margin: float = 0.0) -> float:
    """The p-value of the hypothesis that the mean of `newest` is at most that of `reference` plus `margin`.

    Variances may differ (Welch 1947); the degrees of freedom are Satterthwaite's. Two samples without any variance are
    compared as they are: 0 when the newest lies higher, else 1.
    """
    above = newest.mean - reference.mean - margin
    parts = [sample.variance / sample.count if sample.count else 0.0 for sample in (newest, reference)]
    error = sum(parts)
    if error <= 0.0:
        return 0.0 if above > 0.0 else 1.0
    freedom = error**2 / sum(
        part**2 / (sample.count - 1) for part, sample in zip(parts, (newest, reference), strict=True) if part > 0.0
    )
    return student_tail(above / math.sqrt(error), freedom)


def student_tail(t: float, freedom: float) -> float:
    """The probability that Student's t with `freedom` degrees of freedom exceeds `t`; SciPy's, as are its last bits."""
    from scipy.special import stdtr  # slow to import, and of drift alone

    return float(stdtr(freedom, -t))  # of -t, since one minus the probability loses the digits of a small tail
