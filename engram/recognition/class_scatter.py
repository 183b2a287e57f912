"""Within-class scatter of ridge scores: the evidence that tells near strangers.

A stranger may look ordinary feature by feature, and still lie between the classes that it is compared with: an 8 has
the strokes of a 3. In the scores of the ridge regression, which keep only what tells classes apart, it stands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.recognition.ridge import PackedGram, RidgeSystem

LEAST_VARIANCE = 1e-3
"""Directions of scores with less than this share of the largest variance are left out: that scores sum to one says
nothing of an image."""

RESOLUTION = 1e-6
"""Variance of scores that is taken at least: those of images that are all alike differ by rounding alone."""

MOST_LEVERAGE = 0.99
"""Above it, too few images were learned from to tell how the scores of others scatter."""


@dataclass(frozen=True)
class ClassScatter:
    """Mean scores of every class, and the covariance within classes that all tasks have in common.

    Both are what images that were *not* learned from would show. The sums only tell of those that were, whose scores
    the regression has drawn to 0 and 1; an image's residual without itself is the one with it over 1 - h, h being its
    leverage (Allen's PRESS), and with the task's mean leverage instead of each image's this needs no image (Golub,
    Heath and Wahba 1979). The distance is the one of Fisher's discriminant analysis, and what relative Mahalanobis
    distances (Ren et al. 2021) compare.
    """

    directions: Tensor
    """(classes of all tasks, K): makes scores whose covariance within classes is the identity."""
    means: Tensor
    """(classes of all tasks, K): of each class, in these directions."""

    @classmethod
    def of(cls, pieces: Sequence[PackedGram], system: RidgeSystem) -> Self | None:
        """From all tasks' sums and the regression over them; None where there is but one class to score, or
        rounding has made all variances negative."""
        classes = system.moments.shape[1]
        if classes < 2:
            return None
        weights, inverse = system.weights(), torch.cholesky_inverse(system.factor)
        means, shared, first = [], torch.zeros(classes, classes, dtype=torch.float64), 0
        for piece, share in zip(pieces, system.shares, strict=True):
            gram, images, own = piece.gram(), float(piece.counts.sum()), len(piece.counts)
            spread = piece.scatter() if system.by_class else gram
            leverage = min(MOST_LEVERAGE, share * float((inverse * spread).sum()) / images)
            mean = (weights.T @ piece.moments / piece.counts).T  # (own, classes)
            covariance = (weights.T @ gram @ weights - (mean.T * piece.counts) @ mean) / max(1.0, images - own)
            hot = torch.eye(classes, dtype=torch.float64)[first : first + own]
            if system.by_class:  # one image of a small class carries more of its class's mean
                each = (leverage * images / (own * piece.counts)).clamp_max(MOST_LEVERAGE)[:, None]  # (own, 1)
                means.append(hot - ((hot - mean) / (1 - each)).clamp(-1, 1))
            else:
                means.append(hot - (hot - mean) / (1 - leverage))
            shared += own / classes * covariance / (1 - leverage) ** 2
            first += own
        values, vectors = torch.linalg.eigh(shared)  # ascending
        if values[-1] < 0:
            return None
        kept = values >= LEAST_VARIANCE * values[-1]
        directions = vectors[:, kept] / values[kept].clamp_min(RESOLUTION if system.by_class else 1e-12).sqrt()
        return cls(directions.float().contiguous(), (torch.cat(means) @ directions).float().contiguous())

    def unusual(self, scores: Tensor, sizes: Sequence[int]) -> Tensor:
        """(B, T): how far scores (B, classes of all tasks) are from the nearest class of each task, whose numbers of
        classes are `sizes`.

        The squared distance of a Gaussian's draw is chi-squared; its cube root is nearly normal, whatever the
        number of directions (Wilson and Hilferty 1931), and is given in standard deviations from its mean.
        """
        turned = scores @ self.directions  # (B, K)
        freedom = turned.shape[1]
        spread = 2 / (9 * freedom)
        apart = torch.cdist(turned, self.means, compute_mode="donot_use_mm_for_euclid_dist")  # (B, classes)
        nearest = [own.amin(1) for own in torch.split(apart, list(sizes), 1)]
        root = (torch.stack(nearest, 1).square() / freedom).pow(1 / 3)
        deviates: Tensor = (root - (1 - spread)) / spread**0.5
        return deviates
