"""A new task's density and calibration, each image judged as if it had not been learned from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from engram.recognition.calibration import PRIOR_IMAGES
from engram.recognition.density import RANK, SHRINKAGE, Density, Spectrum
from engram.recognition.leave_one_out import left_out_distances, left_out_scores
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.score_space import SolvedTotals, squared
from engram.recognition.staged.totals import Totals

MOST_SCORED = 1024
"""Images of a task that its scores are taken of, at most: more would tell no rarer event that is asked for."""

SPARE = 32
"""Directions beside the principal ones that the iteration carries along, so that these settle sooner."""

ROUNDS = 8
"""Of the iteration; more change distances by less than one image more does."""

LEAST_DISTANCE = 1e-2
"""Squared distance, in variances, under which images are as near as can be told."""

TURNED = 24
"""Images, of the most unusual and of the others, whose distances are found without them to the last."""

START = 0.5
"""Where the temperature starts from: between that of photographs, 0.6, and that of handwritten digits, 0.13."""

LOGS = (-4.0, 1.0)
"""Between which log-temperatures the best is sought."""

TRIED = 101
"""How many are tried."""


def scaled_density(features: Tensor, labels: Tensor, sums: ExactSums) -> tuple[Density, Tensor]:
    """A density fitted on a task's images, and the squared distances of some, each without itself.

    Parameters
    ----------
    features
        (n, F): of some of the images that `sums` are over, or of them all.
    labels
        (n,).
    """
    means = (sums.moments * sums.step / sums.counts).T  # (classes, F)
    few = sums.images <= len(features) < features.shape[1]
    spectrum = _of_few(features, labels, means) if few else _of_many(sums, means)
    density = Density.cut(means, spectrum).resolved()
    distances = left_out_distances(density, spectrum, sums.counts, features, labels, TURNED if few else 0)
    if not few:
        # Directions follow the images that they are found in: by about as much as they are many beside them.
        distances = distances / (1 - min(0.5, density.directions.shape[1] / sums.images)) ** 2
    distances = distances.clamp_min(LEAST_DISTANCE)
    return density.scaled(distances), distances


def _of_few(features: Tensor, labels: Tensor, means: Tensor) -> Spectrum:
    """The spectrum of images (N, F), by as many numbers as they are."""
    centred = (features.double() - means[labels]) / max(1.0, len(features) - len(means)) ** 0.5  # (N, F)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    seen = values > 1e-10 * values[-1].clamp_min(1e-30)
    values, vectors = values[seen], vectors[:, seen]
    return _padded(values, centred.T @ vectors / values.sqrt(), float(values.sum()))


def _of_many(sums: ExactSums, means: Tensor) -> Spectrum:
    """The principal part of a spectrum from sums, by subspace iteration with a Rayleigh-Ritz step at the end."""
    size = len(sums.gram)
    scatter = (sums.gram * sums.step**2 - (means.T * sums.counts) @ means) / max(1.0, sums.images - len(means))
    generator = torch.Generator().manual_seed(size)
    found = torch.randn(size, min(size, RANK + SPARE), generator=generator, dtype=torch.float64)
    for _ in range(ROUNDS):
        found = torch.linalg.qr(scatter @ found).Q
    values, turned = torch.linalg.eigh(found.T @ scatter @ found)
    return _padded(values[-RANK:].clamp_min(0), (found @ turned)[:, -RANK:], float(scatter.trace()))


def _padded(values: Tensor, directions: Tensor, total: float) -> Spectrum:
    """A whole shrunk spectrum from its largest values, ascending, their directions (F, rank), and the sum of all.

    What is not among them has no direction of its own, and counts in the residual.
    """
    size, rank = directions.shape
    rest = max(0.0, total - float(values.sum())) / max(1, size - rank)
    every = torch.cat([torch.full((size - rank,), rest, dtype=torch.float64), values])
    shrunk = (1 - SHRINKAGE) * every + SHRINKAGE * total / size
    return Spectrum(shrunk, torch.nn.functional.pad(directions, (size - rank, 0)))


@dataclass(frozen=True)
class LeftOutScores:
    """Images of a task in a score space, each as if the regression had not learned from it."""

    distances: Tensor
    """(n, classes of all tasks): squared, from each class's mean."""
    labels: Tensor
    """(n,): among the classes of all tasks."""
    points: Tensor
    """(n, D)."""

    @classmethod
    def of(cls, totals: Totals, solved: SolvedTotals, task: str, features: Tensor, labels: Tensor) -> Self:
        """For images (n, F) of a task with its own labels (n,)."""
        number = [one.task for one in totals.tasks].index(task)
        first = sum(totals.sizes[:number])
        scores = left_out_scores(solved.system, solved.piece(totals, number), number, features, labels, first)
        points = (scores.double() @ solved.directions).float()
        return cls(squared(points, solved.means.float()), labels + first, points)


def temperature_evidence(left_out: LeftOutScores) -> tuple[float, float]:
    """Log of the temperature that fits images best, and how many they are; it is held back towards `START`."""
    count = len(left_out.labels)
    if left_out.distances.shape[1] < 2 or not count:
        return math.log(START), 0.0
    return temperature_losses(left_out)[0], float(count)


def temperature_losses(left_out: LeftOutScores) -> tuple[float, float]:
    """Log of the temperature that fits images best, and their mean loss with it; 0 where there is a single class."""
    count = len(left_out.labels)
    start = math.log(START)
    if left_out.distances.shape[1] < 2 or not count:
        return start, 0.0
    logs = -0.5 * left_out.distances.double()
    grid = torch.linspace(*LOGS, TRIED, dtype=torch.float64)
    losses = torch.stack([cross_entropy(logs * one.exp(), left_out.labels) for one in grid])
    held = (grid - start).square() * (PRIOR_IMAGES / count)
    best = (losses + held).argmin()
    return float(grid[best]), float(losses[best])
