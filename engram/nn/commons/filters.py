"""Filters of the commons: random, or learned from patches of images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.checkpointing.progress import Reporter

PATCHES = 100_000
"""Patches that filters are learned from at most; more change them little."""

WHITENING = 0.1
"""Added to the eigenvalues of the patches' covariance, so that directions of mere noise are not blown up."""

ROUNDS = 8
"""Passes of the clustering; directions hardly move after so many."""


def smooth_filters(count: int, channels: int, patch: int, generator: torch.Generator) -> Tensor:
    """Random filters (count, channels, patch, patch) with the spectrum of natural images, zero mean and unit length.

    Coefficients of a cosine transform are drawn with an amplitude that falls with the spatial frequency.
    """
    steps = torch.arange(patch, dtype=torch.float64)
    basis = torch.cos(torch.pi * (steps[None, :] + 0.5) * steps[:, None] / patch)  # (frequency, position)
    amplitude = 1 / (1 + steps[:, None] ** 2 + steps[None, :] ** 2).sqrt()  # (frequency, frequency)
    drawn = torch.randn(count, channels, patch, patch, generator=generator, dtype=torch.float64) * amplitude
    filters = torch.einsum("ncuv,ux,vy->ncxy", drawn, basis, basis)
    filters = filters - filters.mean((1, 2, 3), keepdim=True)
    lengths = filters.square().sum((1, 2, 3), keepdim=True).sqrt()
    return (filters / lengths).float()


def learned_filters(
    images: Tensor,
    count: int,
    patch: int,
    contrast_floor: float,
    generator: torch.Generator,
    reporter: Reporter | None = None,
    *,
    whitening: float = WHITENING,
    mirror: bool = False,
) -> tuple[Tensor, Tensor]:
    """Directions in which whitened patches cluster (Coates, Lee and Ng 2011; spherical k-means, signs put together).

    Every filter is a mean over hundreds of patches or more, so none shows a patch of an image.

    Parameters
    ----------
    images
        (N, C, H, W) float32 in [0, 1].
    contrast_floor
        Added to a patch's sum of squares before its root divides the patch.
    whitening
        Added to the eigenvalues of the patches' covariance.
    mirror
        Whether every filter will stand beside its mirror image, so that the two count as one direction.

    Returns
    -------
    Filters (count, C, patch, patch) of zero mean, to be applied to the image and divided by the contrast, and what is
    to be added to the quotient, (count,).

    Raises
    ------
    Cancelled
    """
    reporter = reporter or Reporter()
    patches = _patches(images, patch, generator, reporter).double()
    centred = patches.sub_(patches.mean(1, keepdim=True))
    power = centred.square().sum(1, keepdim=True)
    seen = power[:, 0] > contrast_floor / 100
    if int(seen.sum()) >= count:  # else nearly everything is flat, and flat patches are what there is to learn from
        centred, power = centred[seen], power[seen]
    scaled = centred / (power + contrast_floor).sqrt() * patches.shape[1] ** 0.5  # (n, D), about unit variance
    order = torch.arange(patches.shape[1]).view(-1, patch, patch).flip(2).flatten()  # of a patch's mirror image
    mean, whiten = _whitening(scaled, whitening, order if mirror else None)
    points = (scaled.sub_(mean) @ whiten).float()
    directions = _directions(points, count, generator, reporter, order if mirror else None).double()
    filters = directions @ whiten
    offsets = -(filters @ mean)
    filters = (filters - filters.mean(1, keepdim=True)) * patches.shape[1] ** 0.5
    return filters.float().view(count, images.shape[1], patch, patch), offsets.float()


def _whitening(points: Tensor, least: float, order: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean (D,) of points and what makes their covariance the identity (D, D).

    With an `order` of the values, those of the points and of the points in that order together.
    """
    mean = points.mean(0)
    away = points - mean
    covariance = away.T @ away / len(points)
    if order is not None:
        half = (mean - mean[order]) / 2
        mean = mean - half
        covariance = (covariance + covariance[order][:, order]) / 2 + torch.outer(half, half)
    values, vectors = torch.linalg.eigh(covariance)
    return mean, vectors @ torch.diag((values.clamp_min(0) + least).rsqrt()) @ vectors.T


def _patches(images: Tensor, patch: int, generator: torch.Generator, reporter: Reporter) -> Tensor:
    """Patches (n, D) at random places, about as many from each image."""
    chosen = images[torch.randperm(len(images), generator=generator)[: PATCHES // 8]]
    places = (images.shape[2] - patch + 1) * (images.shape[3] - patch + 1)
    each = min(places, max(1, PATCHES // len(chosen)))
    taken = []
    for part in torch.split(chosen, 256):
        reporter.check()
        columns = F.unfold(part, patch).transpose(1, 2)  # (b, places, D)
        rows = torch.stack([torch.randperm(places, generator=generator)[:each] for _ in range(len(part))])
        taken.append(columns.gather(1, rows[:, :, None].expand(-1, -1, columns.shape[2])).flatten(0, 1))
    return torch.cat(taken)


def _directions(
    points: Tensor, count: int, generator: torch.Generator, reporter: Reporter, order: Tensor | None
) -> Tensor:
    """Unit vectors (count, D): spherical k-means in which a point and its negative are the same.

    With an `order` of the values, so are a point and its values in that order.
    """
    start = points[torch.randint(len(points), (count,), generator=generator)]
    noise = 1e-3 * torch.randn(start.shape, generator=generator)  # no two alike, however few points there are
    directions = F.normalize(start + noise)
    for _ in range(ROUNDS):
        total = torch.zeros_like(directions)
        for part in torch.split(points, 4096):
            reporter.check()
            likeness = part @ directions.T  # (n, count)
            if order is not None:
                turned = part[:, order] @ directions.T
                better = turned.abs().amax(1, keepdim=True) > likeness.abs().amax(1, keepdim=True)
                part, likeness = torch.where(better, part[:, order], part), torch.where(better, turned, likeness)
            nearest = torch.from_numpy(likeness.abs().numpy().argmax(1))  # several times as fast as PyTorch's
            signs = likeness.gather(1, nearest[:, None]).sign()
            total.index_add_(0, nearest, part * signs)
        alone = total.norm(dim=1) < 1e-6
        directions = torch.where(alone[:, None], directions, F.normalize(total))
    return directions
