"""Density of a task's images over fixed features: class means and a shared covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.recognition.conformal import ConformalScores
from engram.recognition.ridge import GramStatistics

RANK = 128
"""Principal directions kept; what lies outside them counts as one isotropic residual."""


@dataclass(frozen=True)
class Density:
    """Gaussians around the class means with one shared covariance, principal directions and an isotropic rest.

    The squared distance of an image is the smallest over the classes: Mahalanobis' within the principal directions,
    plus the residual outside them over its own variance, as in probabilistic PCA (Tipping and Bishop 1999) and ViM
    (Wang et al. 2022). Distances are compared over tasks only after `standardised`.
    """

    means: Tensor
    """(classes, F)."""
    directions: Tensor
    """(F, rank), orthonormal."""
    variances: Tensor
    """(rank,)."""
    rest: Tensor
    """(): variance of the residual, per dimension."""
    centre: Tensor
    """(): mean of the log distance on held-out images."""
    scale: Tensor
    """(): its standard deviation."""
    quantiles: Tensor
    """(<= GRADES,): ascending quantiles of the held-out distances."""

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, classes: int, held_out: Tensor) -> Density:
        """Fit on features (N, F) with labels (N,), then set the scale by held-out features (M, F) of the same task."""
        features = features.double()
        means = torch.stack([features[labels == label].mean(0) for label in range(classes)])  # (classes, F)
        centred = features - means[labels]  # (N, F)
        return cls._of(means, centred.T @ centred / max(1, len(features) - classes), held_out)

    @classmethod
    def from_sums(cls, sums: GramStatistics, held_out: Tensor) -> Density:
        """The same from a task's exact sums, with no image looked at again."""
        means = (sums.moments[:-1] / sums.counts).T  # (classes, F)
        scatter = sums.gram[:-1, :-1] - (means.T * sums.counts) @ means
        return cls._of(means, scatter / max(1.0, float(sums.counts.sum()) - len(means)), held_out)

    @classmethod
    def _of(cls, means: Tensor, covariance: Tensor, held_out: Tensor) -> Density:
        size = len(covariance)
        shrunk = 0.99 * covariance + 0.01 * covariance.diagonal().mean() * torch.eye(size, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(shrunk)  # ascending
        rank = min(RANK, size)
        floor = float(values.mean()) * 1e-6 + 1e-12
        rest = values[: size - rank].mean() if size > rank else values[0]
        bare = cls(
            means.float().contiguous(),
            vectors[:, size - rank :].float().contiguous(),
            values[size - rank :].clamp_min(floor).float(),
            rest.clamp_min(floor).float(),
            torch.tensor(0.0),
            torch.tensor(1.0),
            torch.zeros(0),
        )
        seen = ConformalScores.of(_log(bare.distance(held_out)))
        return replace(bare, centre=seen.centre, scale=seen.scale, quantiles=seen.values.exp())

    def distance(self, features: Tensor) -> Tensor:
        """(B, F) -> (B,): squared distance to the nearest class."""
        turned, centres = features @ self.directions, self.means @ self.directions  # (B, rank), (classes, rank)
        scale = self.variances.sqrt()
        within = _squared(turned / scale, centres / scale)  # (B, classes)
        outside = (_squared(features, self.means) - _squared(turned, centres)).clamp_min(0) / self.rest
        return (within + outside).amin(1)

    def standardised(self, distances: Tensor) -> Tensor:
        """Log distances in standard deviations from what the task's own held-out images show."""
        return self._seen().standardised(_log(distances))

    def p_value(self, distances: Tensor) -> Tensor:
        """The conformal p-value (B,), as `ConformalScores.p_value`."""
        return self._seen().p_value(_log(distances))

    def _seen(self) -> ConformalScores:
        """Log distances of held-out images."""
        return ConformalScores(self.centre, self.scale, _log(self.quantiles))


def _log(distances: Tensor) -> Tensor:
    return distances.clamp_min(1e-12).log()


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (B, classes), by differences: the product form cancels where images are close."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
