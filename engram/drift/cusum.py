"""Page's CUSUM over unusual images."""

from __future__ import annotations

import math

CALIBRATION = 0.5
"""The share of known images with a p-value of at most u is taken to be at most u to this power: 0.1 where 0.01 is
right, and 0.22 where 0.05 is. Beyond that it is no drift, but another task."""

NEWCOMERS = 0.2
"""Share of a stream, beyond what is typical, whose being unusual a CUSUM is tuned to find soonest."""

HEIGHT = 13.0
"""The sum at which a CUSUM raises its alarm."""


def bearable(level: float) -> float:
    """The largest share of known images with a p-value of at most `level` that raises no alarm."""
    return math.pow(level, CALIBRATION)


class Cusum:
    """Page's (1954) cumulative sum over images that are unusual at one level, kept between 0 and `HEIGHT`.

    An image counts the log-likelihood ratio of "more are unusual than `typical`, by `NEWCOMERS`" against "as many as is
    typical", at most 1, so that a dozen strange images cannot raise an alarm that the ratio alone would: at the levels'
    `bearable` shares, 1.0 or 0.5 when the image is unusual and -0.2 when it is not, so that it rises in the long run
    where more than 18 % are unusual at 0.01, or 30 % at 0.05. `raised` begins when the sum reaches `HEIGHT` and ends
    when it is back at 0.

    The expectation of the exponential of what an image counts is at most 1 where its chance to be unusual, given all
    images before, is at most `typical`: a false alarm then comes after exp(13) = 442,413 images or more on the average,
    and after half as many where two sums share a stream (e-detectors, Shin, Ramdas and Rinaldo 2023; of independent
    images, Lorden 1971).
    """

    def __init__(self, level: float) -> None:
        self.level = level
        self.value = 0.0
        self.raised = False
        self.expect(bearable(level))

    def expect(self, typical: float) -> None:
        """Count from now on against this share of unusual images."""
        self.typical = typical
        more = typical + NEWCOMERS * (1 - typical)
        self._unusual = min(1.0, math.log(more / typical))
        self._ordinary = math.log((1 - more) / (1 - typical))

    def add(self, unusual: bool) -> None:
        """Count one more image."""
        self.value = min(HEIGHT, max(0.0, self.value + (self._unusual if unusual else self._ordinary)))
        if self.value == (0.0 if self.raised else HEIGHT):
            self.raised = not self.raised
