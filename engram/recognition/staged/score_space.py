"""Score space: the ridge's scores, turned so that every class is a ball around its mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.nn.commons.ridges import OF_FILTERS, Ridges
from engram.recognition.class_scatter import LEAST_VARIANCE, RESOLUTION
from engram.recognition.ridge import PackedGram, RidgeSystem
from engram.recognition.staged.joined.relative_distance import RelativeDistance
from engram.recognition.staged.per_task import per_task
from engram.recognition.staged.totals import Totals

LEAST_LEFT = 0.1
"""Share of the images' degrees of freedom that a regression has to leave, if it is to be judged by what it misses."""

PROBES = 32
"""Random vectors by which a trace is estimated, to about a hundredth (Hutchinson 1990)."""

MOST_LEVERAGE = 0.9
"""Leverage that a class's images are taken to have at most; above it, sums do not tell how others would score."""


@dataclass(frozen=True)
class ScoreSpace:
    """Discriminant analysis in the scores of a ridge regression, of images that were not learned from.

    The sums tell how images scatter that were learned from, whose scores the regression has drawn to 0 and 1. An
    image's residual without itself is the one with it over 1 - h, h being its leverage (Allen's PRESS), of which the
    mean is in the sums as well (Golub, Heath and Wahba 1979). A class's log-density is minus half the squared distance
    from its mean (Fisher 1936).
    """

    weights: Tensor
    """(F + 1, D): from features and a constant of one to the space."""
    means: Tensor
    """(classes of all tasks, D)."""
    relative: RelativeDistance | None = None
    """What tells strangers; None where the distance alone does."""

    def points(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, D)."""
        return features @ self.weights[:-1] + self.weights[-1]

    def squared(self, features: Tensor) -> Tensor:
        """(B, F) -> (B, classes): squared distances from each class's mean."""
        return squared(self.points(features), self.means)

    def unusual(self, points: Tensor, distances: Tensor, sizes: Sequence[int], outputs: Tensor | None = None) -> Tensor:
        """(B, T): how far out points (B, D) are for each task, whose numbers of classes are `sizes`.

        By their squared `distances` (B, classes of all tasks) from class means, or relative to the background of all
        and by what is unusual in a network's `outputs` (B,), where that is asked for.
        The squared distance of a Gaussian's draw is chi-squared; its cube root is nearly normal (Wilson and Hilferty
        1931), and is given in standard deviations from its mean.
        """
        if self.relative is not None:
            return self.relative.unusual(points, distances, sizes, outputs)
        freedom = max(1, self.means.shape[1])
        spread = 2 / (9 * freedom)
        nearest = per_task(distances, sizes, torch.amin)
        deviates: Tensor = ((nearest / freedom).pow(1 / 3) - (1 - spread)) / spread**0.5
        return deviates


def squared(points: Tensor, means: Tensor) -> Tensor:
    """Squared distances (B, classes) of points (B, D) from means (classes, D), by differences: products cancel."""
    return torch.cdist(points, means, compute_mode="donot_use_mm_for_euclid_dist").square()


@dataclass(frozen=True)
class RidgeSolution:
    """A ridge regression with one ridge."""

    factor: Tensor
    """(F + 1, F + 1): lower Cholesky factor."""
    weights: Tensor
    """(F + 1, classes)."""
    squares: Tensor
    """(classes, classes): second moments of the scores."""
    freedom: float
    """Degrees of freedom: the trace of the second moments over themselves and the ridge."""
    error: float
    """Squared error of new images, by generalised cross-validation (Golub, Heath and Wahba 1979)."""

    @classmethod
    def of(cls, second: Tensor, means: Tensor, images: float, ridge: float, least: float = 0.0) -> Self:
        """With second moments (F + 1, F + 1) and class means (F + 1, classes) of so many images.

        Parameters
        ----------
        least
            What is added to every direction at least.
        """
        held = max(ridge / images * float(second.diagonal()[:-1].mean()), least)
        size, classes = means.shape
        factor, failed = _factored(second, held)
        while failed and held < 1e30:  # of features of a few steps, rounding leaves little else
            held *= 10
            factor, failed = _factored(second, held)
        generator = torch.Generator().manual_seed(size)
        probes = 2.0 * torch.randint(0, 2, (size, PROBES), generator=generator).double() - 1
        solved = torch.cholesky_solve(torch.cat([means, probes], 1), factor)
        weights, turned = solved[:, :classes], solved[:, classes:]
        freedom = size - held * float((probes * turned).sum()) / PROBES
        squares = weights.T @ (second @ weights)
        missed = classes - 2 * float((means * weights).sum()) + float(squares.trace())
        left = 1 - freedom / images  # where hardly any is, what is missed says nothing
        return cls(factor, weights, squares, freedom, missed / left**2 if left > LEAST_LEFT else torch.inf)


def _factored(second: Tensor, held: float) -> tuple[Tensor, bool]:
    """The lower Cholesky factor of a matrix with so much more on its diagonal, and whether there is none.

    The matrix is as it was afterwards: a copy would cost a fifth of the factor.
    """
    diagonal = second.diagonal()
    before = diagonal.clone()
    diagonal.add_(held)
    try:
        factor, failed = torch.linalg.cholesky_ex(second)
    finally:
        diagonal.copy_(before)
    return factor, bool(failed)


def best(totals: Totals, ridges: Ridges = OF_FILTERS) -> RidgeSolution:
    """The solution of least error among some ridges, found from the middle outwards."""
    second, means, images = totals.matrix(), totals.means(), float(totals.counts.sum())

    def solved(ridge: float) -> RidgeSolution:
        return RidgeSolution.of(second, means, images, ridge, totals.rounding)

    least, lesser, greater, most = ridges.values
    lower, upper = solved(lesser), solved(greater)
    larger = upper.error < lower.error or (ridges.repeating and lower.error == torch.inf)
    found, other = (upper, solved(most)) if larger else (lower, solved(least))
    return other if other.error < found.error else found


@dataclass(frozen=True)
class SolvedTotals:
    """The regression over all tasks in float64, and the score space that follows from it."""

    system: RidgeSystem
    """With every class counting alike."""
    directions: Tensor
    """(classes of all tasks, D): makes scores whose covariance within classes is the identity."""
    means: Tensor
    """(classes of all tasks, D)."""

    @classmethod
    def of(cls, totals: Totals, ridges: Ridges = OF_FILTERS) -> Self:
        """Solve the regression, and find what its scores are of images that were not learned from."""
        means, counts = totals.means(), totals.counts
        found = best(totals, ridges)
        classes, weights = len(counts), found.weights
        shares = [size / float(one.counts.sum()) for size, one in zip(totals.sizes, totals.tasks, strict=True)]
        # The trace of the scatter within classes over the whole: what images carry of their own scores.
        whole = found.freedom - float((means * weights).sum())
        each = (whole / classes / counts).clamp(0, MOST_LEVERAGE)[:, None]  # (classes, 1)
        scores = means.T @ weights  # (classes, classes): of each class's mean
        hot = torch.eye(classes, dtype=torch.float64)
        apart = hot - ((hot - scores) / (1 - each)).clamp(-1, 1)
        within = (found.squares - scores.T @ scores) / classes
        shared = within * float((1 - each).pow(-2).mean())
        values, vectors = torch.linalg.eigh((shared + shared.T) / 2)  # ascending
        kept = values >= max(LEAST_VARIANCE * float(values[-1]), 1e-12)
        directions = vectors[:, kept] / values[kept].clamp_min(RESOLUTION).sqrt()
        if classes < 2:
            directions = directions[:, :0]  # one class's scores tell nothing
        system = RidgeSystem(found.factor, means, tuple(shares), True)
        return cls(system, directions, apart @ directions)

    @property
    def space(self) -> ScoreSpace:
        """In float32, as it is served."""
        weights = self.system.weights() @ self.directions
        return ScoreSpace(weights.float().contiguous(), self.means.float().contiguous())

    def piece(self, totals: Totals, number: int) -> PackedGram:
        """What leave-one-out scores need to know of a task's sums."""
        one = totals.tasks[number]
        moments = torch.cat([one.moments * totals.step, one.counts[None]])
        return PackedGram(torch.zeros(0, dtype=torch.float64), moments, one.counts)
