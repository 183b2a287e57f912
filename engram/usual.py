"""What is usual for one task, by two kinds of evidence that miss different strangers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.grades import Grades, beside_others

BEYOND = 0.1
"""How much oftener than its p-value says a known image may be called unknown for its density alone."""


@dataclass(frozen=True)
class Usual:
    """Held-out images by their density and by the scatter of their scores, and by both together.

    A density notices images of another kind, the scatter those that lie between the known classes. Together: the
    root of the sum of squares, each kind in standard deviations above what is usual; what is more usual than the mean
    in one way excuses nothing in the other.
    """

    scattered: Grades
    """The scatter alone, as `Scatter.unusual` tells it."""
    both: Grades
    """Both together."""

    @classmethod
    def of(cls, density: Tensor, scatter: Tensor) -> Self:
        """From held-out images: the density (M,), in any unit, and the scatter (M,)."""
        return cls(Grades.of(scatter), Grades.of(_together(beside_others(density), beside_others(scatter))))

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
        both = self.both.p_value(_together(density, self.scattered.standardised(scatter)))
        return torch.minimum(both, alone / BEYOND)


def _together(density: Tensor, scatter: Tensor) -> Tensor:
    return torch.hypot(density.clamp_min(0), scatter.clamp_min(0))
