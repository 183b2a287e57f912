"""Density of a task's images over fixed features: class means and a shared covariance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.recognition.conformal import ConformalScores
from engram.recognition.ridge import GramStatistics

SHRINKAGE = 0.01
"""Share of the mean variance in every direction's variance."""

RESOLUTION = 1e-8
"""Share of the mean square of features that is the least variance, far above the square of float32's rounding."""

RANK = 128
"""Principal directions kept; what lies outside them counts as one isotropic residual."""


@dataclass(frozen=True)
class Spectrum:
    """Variances and directions of a shrunk covariance, all of them."""

    values: Tensor
    """(F,) ascending."""
    vectors: Tensor
    """(F, F): the directions, in columns."""

    @classmethod
    def of(cls, covariance: Tensor) -> Spectrum:
        """Of a covariance (F, F), drawn a little towards that of a sphere."""
        sphere = SHRINKAGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
        return cls(*torch.linalg.eigh((1 - SHRINKAGE) * covariance + sphere))


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
        spectrum = Spectrum.of(centred.T @ centred / max(1, len(features) - classes))
        return cls.cut(means, spectrum).seen_in(held_out)

    @classmethod
    def from_sums(cls, sums: GramStatistics, held_out: Tensor) -> Density:
        """The same from a task's exact sums, with no image looked at again."""
        return cls.unscaled(sums)[0].seen_in(held_out)

    @classmethod
    def unscaled(cls, sums: GramStatistics) -> tuple[Density, Spectrum]:
        """The same before there is anything to set its scale by, and the whole spectrum that it is cut from."""
        means = (sums.moments[:-1] / sums.counts).T  # (classes, F)
        scatter = sums.gram[:-1, :-1] - (means.T * sums.counts) @ means
        spectrum = Spectrum.of(scatter / max(1.0, float(sums.counts.sum()) - len(means)))
        return cls.cut(means, spectrum), spectrum

    def seen_in(self, held_out: Tensor) -> Density:
        """With the scale that held-out features (M, F) of its task show."""
        return self.scaled(self.distance(held_out))

    def resolved(self) -> Density:
        """With no variance under what float32 features can resolve: images that are all alike have none."""
        least = RESOLUTION * float(self.means.double().square().mean())
        return replace(self, variances=self.variances.clamp_min(least), rest=self.rest.clamp_min(least))

    def scaled(self, distances: Tensor) -> Density:
        """With the scale of squared distances (M,) of images that it was not fitted on."""
        seen = ConformalScores.of(_log(distances))
        return replace(self, centre=seen.centre, scale=seen.scale, quantiles=seen.values.exp())

    @classmethod
    def cut(cls, means: Tensor, spectrum: Spectrum) -> Density:
        """The density of a spectrum before there is anything to set its scale by; means are (classes, F)."""
        values, vectors, size = spectrum.values, spectrum.vectors, len(spectrum.values)
        rank = min(RANK, size)
        floor = float(values.mean()) * 1e-6 + 1e-12
        rest = values[: size - rank].mean() if size > rank else values[0]
        return cls(
            means.float().contiguous(),
            vectors[:, size - rank :].float().contiguous(),
            values[size - rank :].clamp_min(floor).float(),
            rest.clamp_min(floor).float(),
            torch.tensor(0.0),
            torch.tensor(1.0),
            torch.zeros(0),
        )

    def distance(self, features: Tensor) -> Tensor:
        """(B, F) -> (B,): squared distance to the nearest class."""
        turned, centres = features @ self.directions, self.means @ self.directions  # (B, rank), (classes, rank)
        scale = self.variances.sqrt()
        within = _squared(turned / scale, centres / scale)  # (B, classes)
        outside = (_squared(features, self.means) - _squared(turned, centres)).clamp_min(0) / self.rest
        return (within + outside).amin(1)

    def standardised(self, distances: Tensor) -> Tensor:
        """Log distances in standard deviations from what the task's own held-out images show."""
        return self.log_scores.standardised(_log(distances))

    def p_value(self, distances: Tensor) -> Tensor:
        """The conformal p-value (B,), as `ConformalScores.p_value`."""
        return self.log_scores.p_value(_log(distances))

    @property
    def log_scores(self) -> ConformalScores:
        """Log distances of held-out images."""
        return ConformalScores(self.centre, self.scale, _log(self.quantiles))


def _log(distances: Tensor) -> Tensor:
    return distances.clamp_min(1e-12).log()


def _squared(points: Tensor, centres: Tensor) -> Tensor:
    """Squared distances (B, classes), by differences: the product form cancels where images are close."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").square()
