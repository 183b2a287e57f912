"""Densities of tasks, scaled by images that they were not fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from engram.context import LearnContext
from engram.data.examples import Examples
from engram.nn.batches import in_parts, pictures_at_once
from engram.nn.commons import Commons
from engram.nn.network import pixels
from engram.recognition.conformal import NOISE_IMAGES
from engram.recognition.density import Density
from engram.recognition.heads.head_balance import HeadBalance
from engram.recognition.leave_one_out import left_out_distances
from engram.recognition.recogniser import TaskProfile
from engram.recognition.ridge import GramStatistics
from engram.recognition.training import common_features

MOST_SCORED = 2048
"""Images of a task that its scores are taken of, at most: more would tell no rarer event that is asked for."""

LEAST_DISTANCE = 1e-2
"""Squared distance, in variances, under which images are as near as can be told; one of the task's own has as many as
there are features."""

NOISE_SCALES = 4
"""Noise for every pixel, then for ever fewer, four on a side in the end, with smooth passages between: clouds."""

NOISE_SEED = 20261129


@dataclass(frozen=True)
class TaskDensity:
    """A task's density over the commons, and the images whose scores say how the task's own images look."""

    density: Density
    features: Tensor
    """(n, F): of these images."""
    labels: Tensor
    """(n,)."""
    distances: Tensor
    """(n,): their squared distances, each as if the density had not been fitted on it."""
    scored: int | None
    """How many they are; None with the first recipe, for which they are those held out."""

    @classmethod
    def fitted(
        cls,
        commons: Commons,
        sums: GramStatistics,
        held_out_features: Tensor,
        train: Examples,
        held_out: Examples,
        context: LearnContext,
    ) -> TaskDensity:
        """Fit a density on sums over `train`, and score the images of both parts.

        Parameters
        ----------
        held_out_features
            (M, F) of the commons.

        Raises
        ------
        Cancelled
        """
        if context.recipe == 1:
            density = Density.from_sums(sums, held_out_features)
            distances = density.distance(held_out_features)
            return cls(density, held_out_features, held_out.labels, distances, None)
        density, spectrum = Density.unscaled(sums)
        density = density.resolved()
        apart = _spread(len(held_out), MOST_SCORED // 2)
        chosen = _spread(len(train), MOST_SCORED - len(apart))
        learned = train.subset(chosen)
        features = common_features(commons, learned, context.reporter, context.device, (0.7, 0.8))
        distances = torch.cat(
            [
                left_out_distances(density, spectrum, sums.counts, features, learned.labels),
                density.distance(held_out_features[apart]),
            ]
        )
        features = torch.cat([features, held_out_features[apart]])
        labels = torch.cat([learned.labels, held_out.labels[apart]])
        distances = distances.clamp_min(LEAST_DISTANCE)
        return cls(density.scaled(distances), features, labels, distances, len(distances))

    def profile(self, task: str, classes: int, temperature: Tensor, balance: HeadBalance | None = None) -> TaskProfile:
        """The profile of the density's task."""
        return TaskProfile(
            task, classes, self.density, temperature, over="commons", scored=self.scored, balance=balance
        )


@torch.no_grad()
def noise_features(commons: Commons, context: LearnContext, channels: int, height: int, width: int) -> Tensor:
    """(NOISE_SCALES * NOISE_IMAGES, F): features of images of pure noise, the same for all models of a size."""
    generator, seeing = torch.Generator().manual_seed(NOISE_SEED), commons.to(context.device)
    parts = []
    for scale in range(NOISE_SCALES):
        sides = [max(4, round(4 * (side / 4) ** (1 - scale / (NOISE_SCALES - 1)))) for side in (height, width)]
        drawn = torch.randint(0, 256, (NOISE_IMAGES, channels, *sides), generator=generator, dtype=torch.uint8)
        images = interpolate(pixels(drawn), (height, width), mode="bilinear")
        parts.append(
            in_parts(images, pictures_at_once(images), lambda part: cast(Tensor, seeing(part.to(context.device))).cpu())
        )
    return torch.cat(parts)


def _spread(count: int, most: int) -> Tensor:
    """Indices of all of so many, or of `most` that are spread over them."""
    return torch.linspace(0, count - 1, min(count, most)).long()
