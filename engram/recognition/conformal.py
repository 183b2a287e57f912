"""Conformal p-values of held-out scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor

QUANTILES = 1024
"""Held-out values kept, as evenly spaced quantiles: enough for p-values down to a thousandth."""

ALPHA = 0.01
"""An image is unknown to a task when fewer than this share of the task's held-out images look as unusual."""

FEWEST = 20
"""Images of a task under which nothing is said of strangers."""

NOISE_IMAGES = 64
"""Images of pure noise of each scale that a task is tried on."""

TELLING = 0.95
"""Share of pure noise that a task has to call unknown, if what it says of strangers is to mean anything."""

BEYOND = 0.1
"""How much oftener than its p-value says a known image may be called unknown for its density alone."""

OF_DENSITY, OF_OTHERS = 10.0, 10 / 9
"""What multiplies p-values of a density and of relative distances, the least of which counts: the density may call one
in ten of the known images unknown that are called so (Bonferroni, with weights)."""

_LEAST = 1e-3
"""Standard deviation that is taken at least: images that are all alike do not make the next one a stranger."""


@dataclass(frozen=True)
class ConformalScores:
    """Non-conformity scores of held-out images: the larger, the less typical the image."""

    centre: Tensor
    """(): their mean."""
    scale: Tensor
    """(): their standard deviation."""
    values: Tensor
    """(<= GRADES,): ascending quantiles of them."""

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """Of values (M,)."""
        steps = torch.linspace(0, 1, min(QUANTILES, len(values)), dtype=torch.float64)
        scale = values.std(unbiased=False).clamp_min(_LEAST)
        return cls(values.mean(), scale, torch.quantile(values.double(), steps).float())

    def standardised(self, values: Tensor) -> Tensor:
        """Values in standard deviations from what the held-out images show."""
        return (values - self.centre) / self.scale

    def p_value(self, values: Tensor) -> Tensor:
        """The conformal p-value (B,): the share of held-out images at least as unusual.

        Beyond the most unusual of them, where counting ends at 1 / (n + 1) however unusual an image is, it goes on
        falling as the tail of Student's t does that predicts one more value: heavy where few images were held out, a
        Gaussian's where many were. A task with few held-out images can say no as well, but less readily.
        """
        count = len(self.values)
        nearer = torch.searchsorted(self.values, values.contiguous())  # (B,)
        counted = (count - nearer + 1) / (count + 1)
        farthest = _log_tail(self.standardised(self.values[-1]), count)
        beyond = (_log_tail(self.standardised(values), count) - farthest).clamp_max(0).exp()
        return torch.where(values > self.values[-1], counted * beyond, counted)


def level_of(count: int) -> float | None:
    """The p-value up to which an image is unknown, by how many scores of its own a task has; None where they are too
    few to say.

    One more image of the same kind is the most unusual of all n + 1 with the chance 1 / (n + 1), whatever the scores
    are distributed like, and no rarer event can be told by counting (Vovk et al. 2005).
    """
    return max(ALPHA, 1 / (count + 1)) if count >= FEWEST else None


def beside_others(values: Tensor) -> Tensor:
    """Values (M,), each in standard deviations of all the others from the mean of these.

    So a held-out image looks as one more image will: it has no part in what it is compared with. Standardised beside
    itself it would look less unusual than it is, and every later image more so; of a dozen held out that is much.
    """
    count, given = len(values), values.double()
    if count < 2:
        return torch.zeros_like(values)
    centred = given - given.mean()
    mean = -centred / (count - 1)  # of the others
    square = (centred.square().sum() - centred.square()) / (count - 1)
    scale = (square - mean.square()).clamp_min(0).sqrt().clamp_min(_LEAST)
    return ((centred - mean) / scale).float()


def _log_tail(values: Tensor, count: int) -> Tensor:
    """The log of the share above each value, in deviations from the mean of `count` others, of one more.

    Student's t with count - 1 degrees of freedom, by the normal deviate that Wallace (1959) gives for it.
    """
    freedom = max(1, count - 1)
    t = values * (freedom / (count + 1)) ** 0.5  # the deviation was taken over `count`, and the mean is an estimate too
    bounded = (freedom * torch.log1p(t.square() / freedom)).sqrt() * ((8 * freedom + 1) / (8 * freedom + 3))
    return cast(Tensor, torch.special.log_ndtr(-bounded.copysign(t)))


@dataclass(frozen=True)
class CombinedScore:
    """Non-conformity by density and by the scatter of class scores, each alone and both together.

    A density notices images of another kind, the scatter those that lie between the known classes. Together: the
    root of the sum of squares, each kind in standard deviations above what is usual; what is more typical than the mean
    in one way excuses nothing in the other.
    """

    scattered: ConformalScores
    """The scatter alone, as `ClassScatter.unusual` tells it."""
    both: ConformalScores
    """Both together."""

    @classmethod
    def of(cls, density: Tensor, scatter: Tensor) -> Self:
        """From held-out images: the density (M,), in any unit, and the scatter (M,)."""
        return cls(
            ConformalScores.of(scatter), ConformalScores.of(_together(beside_others(density), beside_others(scatter)))
        )

    def p_value(self, density: Tensor, scatter: Tensor, alone: Tensor) -> Tensor:
        """(B,): the conformal p-value of both together.

        Parameters
        ----------
        density
            (B,): in standard deviations from what the held-out images show.
        scatter
            (B,): as for `of`.
        alone
            (B,): the density's own p-value. A tenth as small, it decides alone: scores of what is far from all that
            was learned may lie anywhere.
        """
        return torch.minimum(self.p_value_of_both(density, scatter), alone / BEYOND)

    def p_value_of_both(self, density: Tensor, scatter: Tensor) -> Tensor:
        """(B,): the same where the density does not decide alone."""
        return self.both.p_value(_together(density, self.scattered.standardised(scatter)))


def _together(density: Tensor, scatter: Tensor) -> Tensor:
    return torch.hypot(density.clamp_min(0), scatter.clamp_min(0))
