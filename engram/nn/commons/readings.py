"""Readings of a network: means and spreads of its levels, and the maps that adapters read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.config.backbones import BackboneDescription, Level

QUARTERS = 2
"""Cells a side over which the last kind of reading averages."""

LARGEST_GRID = 8
"""Cells a side of the maps that adapters read, at most."""

MOST_CHANNELS = 2048
"""Channels of these maps, at most."""

COARSE = 8
"""Reduction from which on a level's maps are read by adapters: what is finer shows edges, which the others know of."""


@dataclass(frozen=True)
class LevelReading:
    """One reading of one level."""

    kind: Literal["classifier", "mean", "spread", "quarters"]
    """What the classifier reads, or of the level's map the mean over all places, their deviation, four means."""
    level: int
    """Which level; -1 for the classifier's."""
    width: int
    """Features."""


@dataclass(frozen=True)
class Readings:
    """All that is read of a network."""

    features: tuple[LevelReading, ...]
    mapped: tuple[int, ...]
    """Levels whose maps adapters read, side by side."""
    channels: int
    """Of these maps together."""
    side: int
    """Cells a side of these maps."""

    @classmethod
    def of(cls, description: BackboneDescription, levels: Literal["all", "last"], most: int) -> Self:
        """As many features as fit in `most`, and the maps of the coarsest levels."""
        found = [LevelReading("classifier", -1, description.features)]
        if levels == "all":
            found += _of_levels(description)
        chosen: list[LevelReading] = []
        left = most
        for reading in found:
            # What the classifier reads is always there, however wide it is.
            if reading.width <= left or not chosen:
                chosen.append(reading)
                left -= reading.width
        mapped, channels = _mapped(description.levels)
        return cls(tuple(chosen), mapped, channels, _side(description))

    @property
    def width(self) -> int:
        """Features in all."""
        return sum(reading.width for reading in self.features)

    def read(self, levels: Sequence[Tensor], features: Tensor) -> Tensor:
        """(B, width) float32, of maps (B, C, h, w) and what the classifier reads (B, F)."""
        return torch.cat([self._one(reading, levels, features) for reading in self.features], 1)

    def maps(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, channels, side, side) float32."""
        return torch.cat([resized(levels[number], self.side) for number in self.mapped], 1)

    def _one(self, reading: LevelReading, levels: Sequence[Tensor], features: Tensor) -> Tensor:
        if reading.kind == "classifier":
            return features
        level = levels[reading.level]  # (B, C, h, w)
        if reading.kind == "mean":
            return level.mean((2, 3))
        if reading.kind == "spread":
            return level.var((2, 3), unbiased=False).sqrt()
        return F.adaptive_avg_pool2d(level, QUARTERS).flatten(1)

    def to_row(self) -> dict[str, Any]:
        """What a header says of it."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Any) -> Self:
        """The inverse of `to_row`; raises KeyError, TypeError, ValueError."""
        features = tuple(LevelReading(one["kind"], int(one["level"]), int(one["width"])) for one in row["features"])
        return cls(features, tuple(map(int, row["mapped"])), int(row["channels"]), int(row["side"]))


def _of_levels(description: BackboneDescription) -> list[LevelReading]:
    """Readings of all levels in the order in which they are worth their room, the coarsest level of each kind first."""
    levels = list(enumerate(description.levels))[::-1]
    sides = [description.preprocessing.size // level.reduction for level in description.levels]
    last = len(levels) - 1
    # The last map's mean is what the classifier of most convolutional networks reads anyway.
    repeated = description.levels[last].channels == description.features and description.levels[last].layout == "maps"
    means = [LevelReading("mean", n, level.channels) for n, level in levels if not (n == last and repeated)]
    spreads = [LevelReading("spread", n, level.channels) for n, level in levels if sides[n] > 1]
    quarters = [
        LevelReading("quarters", n, QUARTERS**2 * level.channels)
        for n, level in levels
        if sides[n] >= QUARTERS and level.reduction >= COARSE
    ]
    return [*means, *spreads, *quarters]


def _mapped(levels: Sequence[Level]) -> tuple[tuple[int, ...], int]:
    """Which levels adapters read, ascending, and channels in all; the coarsest one is always among them."""
    chosen: list[int] = []
    channels = 0
    for number, level in reversed(list(enumerate(levels))):
        if not chosen or (level.reduction >= COARSE and channels + level.channels <= MOST_CHANNELS):
            chosen.append(number)
            channels += level.channels
    return tuple(sorted(chosen)), channels


def _side(description: BackboneDescription) -> int:
    """As many cells a side as the coarsest level has, doubled while they stay within `LARGEST_GRID`."""
    side = max(1, description.preprocessing.size // description.levels[-1].reduction)
    while side > LARGEST_GRID:
        side = (side + 1) // 2
    while 2 * side <= LARGEST_GRID and description.levels[-1].layout != "tokens":
        side *= 2
    return side


def resized(level: Tensor, side: int) -> Tensor:
    """(B, C, h, w) -> (B, C, side, side): averaged where it is finer, repeated where it is coarser."""
    if level.shape[2] >= side:
        return F.adaptive_avg_pool2d(level, side)
    return F.interpolate(level, size=(side, side), mode="nearest")
