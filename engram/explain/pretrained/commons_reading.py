"""Readings of pretrained commons: what heads read of their features, and adapters of their maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain.grid_commons import contributions
from engram.explain.pretrained.reading import Explained, Seeds
from engram.explain.pretrained.sharing import shared_by_magnitude
from engram.nn.commons.pretrained_commons import UNIT, ZERO, PretrainedCommons
from engram.nn.commons.readings import QUARTERS, LevelReading, resized
from engram.nn.pretrained.taps import Seen

_LEAST = 1e-12
"""What a root is taken of at least; it has no slope at zero."""


@dataclass(frozen=True)
class CommonsReading:
    """`weight @ features + bias` of pretrained commons, whose features count as if they were not rounded.

    A feature contributes by how far it is from its centre over the reference images.
    """

    commons: PretrainedCommons
    weight: Tensor
    """(features,)."""
    bias: Tensor
    """()."""

    def logit(self, seen: Seen) -> Tensor:
        """The weighted sum, ()."""
        return self._features(seen) @ self.weight + self.bias

    def seeds(self, seen: Seen) -> Seeds:
        """Each feature's contribution, given to places by magnitude, or by their squared deviation from the mean."""
        parts = contributions(self._features(seen).detach(), self.weight, self.bias)
        each = self.commons.readings.features
        split = torch.split(parts[None], [reading.width for reading in each], 1)
        return Seeds(_placed(reading, seen, part) for reading, part in zip(each, split, strict=True))

    def _features(self, seen: Seen) -> Tensor:
        raw = torch.cat([_read(reading, seen) for reading in self.commons.readings.features], 1)[0]
        centres, scales = cast(Tensor, self.commons.centres), cast(Tensor, self.commons.scales)
        return (raw - centres.to(raw.device)) * scales.to(raw.device)


@dataclass(frozen=True)
class MapsReading:
    """A number that engrams read of the maps of pretrained commons; rounding counts as no change."""

    commons: PretrainedCommons
    carry: Callable[[Tensor], tuple[float, Tensor]]
    """For maps (1, channels, side, side) in [0, 1] the number, and their relevance or its gradient by them."""

    def logit(self, seen: Seen) -> Tensor:
        """The number, (), with its gradient, which `carry` gives."""
        maps = self._maps(seen)
        number, gradient = self.carry(maps.detach())
        slope = (maps * gradient).sum()
        return slope - slope.detach() + number

    def seeds(self, seen: Seen) -> Seeds:
        """The relevance that `carry` gives, shared in each cell by magnitude."""
        _, relevance = self.carry(self._maps(seen).detach())
        levels = [seen.levels[number] for number in self.commons.readings.mapped]
        parts = torch.split(relevance, [level.shape[1] for level in levels], 1)
        pool = partial(resized, side=self.commons.readings.side)
        return Seeds((level, shared_by_magnitude(level, pool, part)) for level, part in zip(levels, parts, strict=True))

    def _maps(self, seen: Seen) -> Tensor:
        """(1, channels, side, side) in [0, 1]."""
        raw = self.commons.readings.maps(seen.levels)
        scaling = (self.commons.map_centres, self.commons.map_scales)
        centres, scales = (cast(Tensor, one).to(raw.device)[:, None, None] for one in scaling)
        return ((raw - centres) * scales * UNIT + ZERO).clamp(0, 255) / 255


@dataclass(frozen=True)
class Together:
    """The sum of several numbers that are read of one network."""

    readings: Sequence[Explained]

    def logit(self, seen: Seen) -> Tensor:
        """The sum, ()."""
        return torch.stack([reading.logit(seen) for reading in self.readings]).sum()

    def seeds(self, seen: Seen) -> Seeds:
        """The seeds of all."""
        return Seeds(pair for reading in self.readings for pair in reading.seeds(seen))


def _read(reading: LevelReading, seen: Seen) -> Tensor:
    """As `Readings.read` has it, but with a slope everywhere."""
    if reading.kind == "classifier":
        return seen.features
    level = seen.levels[reading.level]
    match reading.kind:
        case "mean":
            return level.mean((2, 3))
        case "spread":
            return level.var((2, 3), unbiased=False).clamp_min(_LEAST).sqrt()
        case "quarters":
            return F.adaptive_avg_pool2d(level, QUARTERS).flatten(1)


def _placed(reading: LevelReading, seen: Seen, part: Tensor) -> tuple[Tensor, Tensor]:
    """What was read, and relevance of its shape that sums to that of the features (1, width)."""
    if reading.kind == "classifier":
        return seen.features, part
    level = seen.levels[reading.level]
    match reading.kind:
        case "mean":
            return level, shared_by_magnitude(level, lambda given: given.mean((2, 3)), part)
        case "spread":
            deviations = (level - level.mean((2, 3), keepdim=True)).square()
            return level, shared_by_magnitude(deviations, lambda given: given.mean((2, 3)), part)
        case "quarters":
            return level, shared_by_magnitude(
                level, lambda given: F.adaptive_avg_pool2d(given, QUARTERS).flatten(1), part
            )
