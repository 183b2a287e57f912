"""Whether one sample's mean lies above another's: a one-sided Welch test on running sums."""

from __future__ import annotations

import math

_STEPS = 500
_PRECISION = 1e-15


class Moments:
    """Count, mean and variance of numbers in [0, 1], without the numbers."""

    __slots__ = ("_squares", "_total", "count")

    def __init__(self) -> None:
        self.count = 0
        self._total = 0.0
        self._squares = 0.0

    def add(self, value: float) -> None:
        """Count one more."""
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
    """The probability that Student's t with `freedom` degrees of freedom exceeds `t`."""
    whole = freedom + t * t
    half = 0.5 * _incomplete_beta(freedom / whole, t * t / whole, freedom / 2, 0.5)
    return half if t > 0 else 1.0 - half


def _incomplete_beta(x: float, y: float, a: float, b: float) -> float:
    """The regularised incomplete beta function at x = 1 - y, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0 or y <= 0.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(y, x, b, a)  # there the fraction converges fast
    scale = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y) - math.log(a)
    )
    # Lentz's method: numerator and denominator as quotients of consecutive terms.
    upper, lower = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1))
    fraction = lower
    for m in range(1, _STEPS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            lower = 1.0 / (1.0 + term * lower)
            upper = 1.0 + term / upper
            fraction *= upper * lower
        if abs(upper * lower - 1.0) < _PRECISION:
            break
    return scale * fraction
