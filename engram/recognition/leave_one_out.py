"""Leave-one-out scores of images that were learned from, in closed form.

What a density or a regression says of an image that it was fitted on is too kind. Without that image it differs by a
change of rank one or two, so that what it would have said then needs no second fit (Sherman and Morrison 1950; Allen's
PRESS): every image of a task can tell what an image of the task looks like that was not learned from.
"""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from engram.recognition.density import SHRINKAGE, Density, Spectrum
from engram.recognition.ridge import PackedGram, RidgeSystem

CHUNK = 2**22
"""Numbers worked on at a time."""

TURNED = 128
"""Images without which principal directions are found anew: so many of the most unusual, and as many of the others."""

STEPS = 24
"""Bisections of an eigenvalue."""


def left_out_distances(
    density: Density, spectrum: Spectrum, counts: Tensor, features: Tensor, labels: Tensor, turned_images: int = TURNED
) -> Tensor:
    """Squared distances (N,) that images would have, had each not been among those that a density was fitted on.

    Where a task has more images than the density has principal directions, leaving one out also turns these. What
    that does is worked out for some images, and taken to do as much to the others.

    Parameters
    ----------
    density, spectrum
        As `Density.unscaled` made them from sums over these images and others.
    counts
        (classes,): how many images of each class they were made from.
    features
        (N, F) of images that are among those.
    labels
        (N,).
    turned_images
        Of the most unusual, and of the others, for how many that is worked out; 0 for none.
    """
    size = max(1, CHUNK // density.means.numel())
    parts = zip(torch.split(features, size), torch.split(labels, size), strict=True)
    counts = counts.double()
    fixed = torch.cat([_with_fixed_directions(density, counts, given, own) for given, own in parts])  # (N,)
    count, own = float(counts.sum()) - len(counts), counts[labels]
    order = fixed.argsort()
    order = order[own[order] > 1]
    if count <= density.directions.shape[1] or not len(order) or not turned_images:
        return fixed
    # The most unusual ones turn the directions most, and are what other images are compared with.
    usual, unusual = order[:-turned_images], order[-turned_images:]
    some = torch.cat(
        [usual[torch.linspace(0, len(usual) - 1, min(turned_images, len(usual))).long()], unusual]
    )  # ascending
    apart = features[some].double() - density.means.double()[labels[some]]  # (K, F)
    rank, size = density.directions.shape[1], max(1, CHUNK // density.directions.numel())
    parts = zip(torch.split(apart, size), torch.split(own[some], size), strict=True)
    turned = torch.cat([_with_turned_directions(spectrum, rank, count, its, given) for given, its in parts])
    ratio = turned / fixed[some]
    told = ratio.isfinite() & (ratio > 0)  # images that are all alike have no distance, with or without one of them
    if not bool(told.any()):
        return fixed
    known, logs = fixed[some][told].log().numpy(), ratio[told].log().numpy()
    return fixed * torch.from_numpy(numpy.exp(numpy.interp(fixed.clamp_min(1e-30).log().numpy(), known, logs))).float()


def _with_fixed_directions(density: Density, counts: Tensor, features: Tensor, labels: Tensor) -> Tensor:
    means, directions = density.means.double(), density.directions.double()
    size, rank = directions.shape
    count, own = float(counts.sum()) - len(means), counts[labels]  # what the scatter was divided by, (N,)
    more = own / (own - 1).clamp_min(1)  # (N,): a residual without the image's part in its mean, over that with it
    apart = features.double()[:, None] - means[None]  # (N, classes, F)
    turned = apart @ directions  # (N, classes, rank)
    outside = (apart.square().sum(2) - turned.square().sum(2)).clamp_min(0)  # (N, classes)
    row = torch.arange(len(labels))
    mine, rest = turned[row, labels], outside[row, labels]  # (N, rank), (N,)
    square = more * (mine.square().sum(1) + rest)  # (N,): its share of the scatter
    mean = float(density.variances.double().sum() + density.rest.double() * (size - rank)) / size  # of the variances
    floor, least, fewer = SHRINKAGE * mean, 1e-12 + 1e-6 * mean, max(1.0, count - 1)
    shrunk = SHRINKAGE * ((mean * count - square / size) / fewer).clamp_min(0.0)  # (N,)
    within = (density.variances.double() - floor).clamp_min(0)[None] * (count / fewer) + shrunk[:, None]  # (N, rank)
    left = (density.rest.double() - floor).clamp_min(0) * count - (1 - SHRINKAGE) * more * rest / max(1, size - rank)
    beyond = (left.clamp_min(0) / fewer + shrunk).clamp_min(least)[:, None]  # (N, 1)
    part = ((1 - SHRINKAGE) * more / fewer)[:, None]  # (N, 1)
    over = mine / within.clamp_min(least)  # (N, rank)
    crossed = (turned * over[:, None]).sum(2)  # (N, classes)
    kept = (1 - part[:, 0] * (mine * over).sum(1)).clamp_min(1e-6)[:, None]  # (N, 1)
    inner = (turned.square() / within.clamp_min(least)[:, None]).sum(2) + part * crossed.square() / kept
    found = inner + outside / beyond  # (N, classes)
    # Its own class has its mean elsewhere without it, and is not there at all if it was the only one.
    found[row, labels] = torch.where(own > 1, found[row, labels] * more.square(), torch.inf)
    return found.amin(1).float()


def _with_turned_directions(spectrum: Spectrum, rank: int, count: float, own: Tensor, apart: Tensor) -> Tensor:
    """Squared distances (K,) to the own class's mean, the principal directions found anew without each image.

    Without a residual z, in the directions of the spectrum, the scatter is diag(d) - g z z^T. Its eigenvalues m lie
    between the d and solve 1 = g sum z^2 / (d - m), and z has the square 1 / (g^2 sum z^2 / (d - m)^2) along their
    eigenvectors (Golub 1973).
    """
    size, more, fewer = len(spectrum.values), own / (own - 1), max(1.0, count - 1)
    mean = float(spectrum.values.mean())
    values = ((spectrum.values.flip(0) - SHRINKAGE * mean) / (1 - SHRINKAGE)).clamp_min(0) * count  # (F,) descending
    there = min(size, int(count) + 1)  # the scatter of so many images has no more directions
    along = (apart @ spectrum.vectors.flip(1)).square()  # (K, F)
    values, along, whole = values[:there], along[:, :there], apart.square().sum(1)
    low, high = (part[None].expand(len(own), -1).clone() for part in (values[1 : rank + 1], values[:rank]))  # (K, rank)
    low = torch.nn.functional.pad(low, (0, high.shape[1] - low.shape[1]))
    for _ in range(STEPS):
        middle = (low + high) / 2
        gaps = values[None, None] - middle[:, :, None]  # (K, rank, F)
        above = more[:, None] * (along[:, None] / gaps).sum(2) > 1
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    middle = (low + high) / 2
    slope = (along[:, None] / (values[None, None] - middle[:, :, None]).square()).sum(2)  # (K, rank)
    seen = 1 / (more[:, None].square() * slope).clamp_min(1e-300)  # (K, rank)
    seen = torch.minimum(seen.nan_to_num(0.0), whole[:, None])  # an eigenvalue that stands twice keeps one of its own
    total = mean * count * size - more * whole  # (K,): the trace of what is left
    shrunk = SHRINKAGE * total.clamp_min(0) / (fewer * size)
    variances = (1 - SHRINKAGE) * middle / fewer + shrunk[:, None]
    rest = (1 - SHRINKAGE) * (total - middle.sum(1)).clamp_min(0) / (fewer * max(1, size - rank)) + shrunk
    outside = (whole - seen.sum(1)).clamp_min(0)
    found: Tensor = ((seen / variances).sum(1) + outside / rest) * more.square()
    return found


def left_out_scores(
    system: RidgeSystem, piece: PackedGram, number: int, features: Tensor, labels: Tensor, first: int
) -> Tensor:
    """Class scores (N, classes of all tasks) that images would have, had each not been learned from.

    Parameters
    ----------
    system
        The regression over all tasks, by class.
    piece
        The sums of the images' task.
    number
        Which task that is.
    features
        (N, F) of images that are in `piece`.
    labels
        (N,): indices of the task's own classes.
    first
        The first of these among the classes of all tasks.
    """
    assert system.by_class, "what an image counts is worked out for classes that count alike"
    weights, means = system.weights(), piece.means()  # (F + 1, classes), (F + 1, own)
    solved = torch.linalg.solve_triangular(system.factor, means, upper=False)  # (F + 1, own)
    size = max(1, CHUNK // len(weights))
    parts = zip(torch.split(features, size), torch.split(labels, size), strict=True)
    share = system.shares[number]
    return torch.cat([_left_out_scores(system, weights, piece, solved, share, *one, first) for one in parts])


def _left_out_scores(
    system: RidgeSystem,
    weights: Tensor,
    piece: PackedGram,
    solved: Tensor,
    share: float,
    features: Tensor,
    labels: Tensor,
    first: int,
) -> Tensor:
    count, means = len(labels), piece.means().T[labels]  # (N, F + 1)
    residuals = torch.cat([features.double(), torch.ones(count, 1, dtype=torch.float64)], 1) - means  # (N, F + 1)
    own = piece.counts[labels]  # (N,)
    weight = share * float(piece.counts.sum()) / len(piece.counts)  # of a class
    alone, others = own < 2, (own - 1).clamp_min(1)
    turned = torch.linalg.solve_triangular(system.factor, residuals.T, upper=False).T  # (N, F + 1)
    centres = solved.T[labels]  # (N, F + 1)
    # In the span of the residual r and the class mean m the system loses U K U^T, and the moments of the class w r / n.
    pairs = torch.stack([turned, centres], 1)  # (N, 2, F + 1)
    inner = pairs @ pairs.transpose(1, 2)  # (N, 2, 2): U^T A^-1 U
    lost = torch.zeros(count, 2, 2, dtype=torch.float64)
    lost[:, 0, 0] = torch.where(alone, 0.0, share * own / others - weight / others.square())
    lost[:, 0, 1] = lost[:, 1, 0] = torch.where(alone, 0.0, weight / others)
    lost[:, 1, 1] = torch.where(alone, weight, 0.0)
    gained = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - lost @ inner, lost)  # (N, 2, 2)
    seen = torch.stack([residuals @ weights, means @ weights], 1)  # (N, 2, classes): U^T A^-1 B
    image = inner.sum(1, keepdim=True)  # (N, 1, 2): x^T A^-1 U, x being r + m
    scores: Tensor = seen.sum(1) + (image @ gained @ seen)[:, 0]  # (N, classes)
    residual = (image[:, 0, 0] + (image @ gained @ inner)[:, 0, 0]) * weight / others  # (N,)
    rows, columns = torch.arange(count), labels + first
    scores[rows, columns] = torch.where(alone, 0.0, scores[rows, columns] - residual)
    return scores.float()
