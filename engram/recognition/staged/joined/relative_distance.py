"""Relative Mahalanobis distance in score space: that from a class, less that from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from engram.recognition.staged.joined.output_deviations import OutputDeviations
from engram.recognition.staged.per_task import per_task

BETWEEN = 0.5
"""Share of the scatter of class means in the background: chosen on held-out training images of Split-CIFAR-10 over
EfficientNet-Lite0, where anything from a sixth to three quarters does as well."""

FAR, USUAL = 2.0, 1.0
"""What a deviation of the plain distance above `USUAL` counts beside the ratio, in which what is far from everything
cancels as well: chosen there too, with MNIST far from the tasks."""

OF_OUTPUTS, USUAL_BESIDE = 1.5, 2.0
"""What deviations of a network's outputs count beside the ratio, and `USUAL` where there are these: chosen on held-out
training images, with pairs of classes of CIFAR-10 left out that are none of the benchmark's tasks."""

_LEAST = 1e-3
"""Deviation that is taken at least."""


@dataclass(frozen=True)
class RelativeDistance:
    """The log-likelihood ratio of a background and each class (Ren et al. 2021), standardised class by class.

    What every image of photographs shows counts in both distances, and cancels; what is left is whether an image is one
    of a class, not of something that lies between the classes. The background is a Gaussian around the mean of the
    class means, as wide as a class and a share of the scatter of these means. A class's own images have a ratio whose
    mean and deviation follow from the class's mean alone, so that ratios compare whatever other classes there are.
    """

    centre: Tensor
    """(D,): the mean of the class means."""
    background: Tensor
    """(D, D): the inverse covariance of the background."""
    offsets: Tensor
    """(classes of all tasks,): the mean ratio of a class's own images, were they Gaussian."""
    scales: Tensor
    """(classes of all tasks,): its standard deviation."""
    expected: Tensor
    """(): the mean squared distance of a class's own images."""
    freedom: Tensor
    """(): degrees of freedom of the chi-squared distribution that it follows, but for its scale."""
    outputs: OutputDeviations | None = field(default=None, kw_only=True)
    """Of the network's own outputs, which count as well; None where there are none, and before `novelty` 3."""

    @classmethod
    def of(cls, parts: Sequence[tuple[float, Tensor]], outputs: OutputDeviations | None = None) -> Self:
        """From the weight of each commons and its class means (classes, D_k), in which classes have unit covariance.

        Points and means are those of all commons side by side, each times the root of its weight.
        """
        centres, inverses, within, apart = [], [], [], []
        for weight, means in parts:
            own = means.double()
            centre = own.mean(0)
            own = own - centre
            unit = torch.eye(own.shape[1], dtype=torch.float64)
            inverses.append(torch.linalg.inv(unit + BETWEEN * own.T @ own / len(own)))
            centres.append(weight**0.5 * centre)
            apart.append(weight**0.5 * own)
            within.append(weight * unit.diagonal())
        classes, own, first = torch.cat(apart, 1), torch.cat(within), 0
        background = torch.zeros(len(own), len(own), dtype=torch.float64)
        for inverse in inverses:
            last = first + len(inverse)
            background[first:last, first:last] = inverse
            first = last
        ratio = (torch.eye(len(background), dtype=torch.float64) - background) * own  # (D, D)
        turned = classes @ background  # (classes, D)
        offsets = ratio.trace() - (turned * classes).sum(1)
        variances = 2 * (ratio @ ratio).trace() + 4 * (turned.square() * own).sum(1)
        scales = variances.clamp_min(0).sqrt().clamp_min(_LEAST)
        expected = own.sum()
        freedom = expected.square() / own.square().sum().clamp_min(_LEAST)  # Satterthwaite 1946
        found = (torch.cat(centres), background, offsets, scales, expected.clamp_min(_LEAST), freedom.clamp_min(1))
        return cls(*(one.float().contiguous() for one in found), outputs=outputs)

    def unusual(self, points: Tensor, distances: Tensor, sizes: Sequence[int], outputs: Tensor | None = None) -> Tensor:
        """(B, T): how far out images are for each task, in deviations from what the own ones of its classes show.

        Parameters
        ----------
        points
            (B, D), in the score space.
        distances
            (B, classes of all tasks): squared, from the classes' means.
        sizes
            Classes of each task.
        outputs
            (B,): what `OutputDeviations` finds unusual; None where that is left out.
        """
        ratios = per_task(self.deviates(points, distances), sizes, torch.amin)
        return self.told(ratios, per_task(distances, sizes, torch.amin), outputs)

    def told(self, ratios: Tensor, nearest: Tensor, outputs: Tensor | None = None) -> Tensor:
        """(B, T), from the least deviates (B, T) of tasks' classes and their least squared distances (B, T)."""
        spread = 2 / (9 * self.freedom)
        far = ((nearest / self.expected).pow(1 / 3) - (1 - spread)) / spread.sqrt()  # as `ScoreSpace.unusual`
        if outputs is None:
            return ratios + FAR * (far - USUAL).clamp_min(0)
        return ratios + FAR * (far - USUAL_BESIDE).clamp_min(0) + OF_OUTPUTS * outputs[:, None]

    def deviates(self, points: Tensor, distances: Tensor) -> Tensor:
        """(B, classes of all tasks): the ratio of each class, in deviations from what its own images show."""
        apart = points - self.centre
        background = ((apart @ self.background) * apart).sum(1, keepdim=True)  # (B, 1)
        return (distances - background - self.offsets) / self.scales
