"""Replay memory: masked maps and the associative memory that completes them, within a byte budget."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engram.config.sharc import SharcSettings
from engram.errors import CapacityExhausted
from engram.methods.sharc.associative_memory import (
    AssociativeMemory,
    GaussianMemory,
    HopfieldMemory,
    NoCompletion,
    recall_error,
)
from engram.methods.sharc.masked_maps import MaskedMaps, bytes_each, quota
from engram.methods.sharc.replay import RecalledMaps
from engram.methods.sharc.saliency import kept_channels

KINDS: dict[str, type[AssociativeMemory]] = {
    "gaussian": GaussianMemory,
    "hopfield": HopfieldMemory,
    "none": NoCompletion,
}


def maps_per_class(settings: SharcSettings, shape: tuple[int, int], classes: int) -> int:
    """Maps of each class that fit into the memory when there are so many classes.

    Parameters
    ----------
    shape
        Channels and places of a map.

    Raises
    ------
    CapacityExhausted
        when not even one does.
    """
    channels, places = shape
    each = [bytes_each(channels, places, kept_channels(channels, settings.quantile), settings.values)]
    fixed = 0
    if settings.recall == "gaussian":
        rank = min(settings.rank, channels)
        fixed = 2 * classes * channels * places + 2 * channels * rank + 4 * channels + 8
    elif settings.recall == "hopfield":
        number = 1 if settings.values == "uint8" else 2
        each.append(channels * places * number + (2 if settings.values == "uint8" else 0) + 2)
        fixed = 4 + 8
    found = quota(settings.memory_bytes, fixed, each, classes)
    if found < 1:
        raise CapacityExhausted(
            f"a memory of {settings.memory_bytes} bytes has no room for one map of each of {classes} classes: "
            f"{fixed} bytes recall, and {sum(each)} bytes are needed for each map"
        )
    return found


@dataclass(frozen=True)
class ReplayMemory:
    """A replay memory: masked maps of all classes so far, and the associative memory that completes them. It is never
    changed; learning makes another."""

    masked_maps: MaskedMaps
    memory: AssociativeMemory

    @classmethod
    def nothing(cls, settings: SharcSettings, shape: tuple[int, int]) -> ReplayMemory:
        channels, places = shape
        empty = MaskedMaps.empty(channels, places, kept_channels(channels, settings.quantile), settings.values)
        match settings.recall:
            case "gaussian":
                return cls(empty, GaussianMemory.empty(channels, places, settings.rank))
            case "hopfield":
                size = channels * places
                return cls(empty, HopfieldMemory.empty(settings.values, size, settings.beta, settings.steps))
            case "none":
                return cls(empty, NoCompletion())

    @property
    def nbytes(self) -> int:
        """What all of it takes."""
        return self.masked_maps.nbytes + self.memory.nbytes

    def trimmed(self, most: int) -> ReplayMemory:
        """With at most so many maps of each class: the last of each are forgotten."""
        rows = self.masked_maps.first(most)
        memory = self.memory.subset(rows) if isinstance(self.memory, HopfieldMemory) else self.memory
        return ReplayMemory(self.masked_maps.subset(rows), memory)

    def grown(self, maps: Tensor, labels: Tensor, masks: Tensor, settings: SharcSettings) -> ReplayMemory:
        """With masked maps (N, channels, places) of new classes, those to keep longest first."""
        rows = MaskedMaps.of(maps, masks, labels, settings.values)
        memory = self.memory
        if isinstance(memory, HopfieldMemory):
            memory = memory.learned(maps, labels, 0)
        return ReplayMemory(self.masked_maps.joined(rows), memory)

    def taught(self, maps: Tensor, labels: Tensor, classes: int) -> ReplayMemory:
        """With a memory that knows how maps of the new classes look; one that holds patterns has no use for others."""
        if isinstance(self.memory, HopfieldMemory):
            return self
        return ReplayMemory(self.masked_maps, self.memory.learned(maps, labels, classes))

    def recalled(self) -> RecalledMaps:
        """Every map, whole."""
        labels = self.masked_maps.labels.long()
        return RecalledMaps(self.memory.recall(self.masked_maps.cues(), self.masked_maps.masks(), labels), labels)

    def about(self, maps: Tensor) -> dict[str, object]:
        """For a report: real bytes, and how well the newest maps (N, channels, places) are recalled."""
        whole = maps[0].numel() * self.masked_maps.small.element_size() * len(self.masked_maps)
        newest = self.recalled().maps[-len(maps) :]
        details: dict[str, object] = {
            "maps": len(self.masked_maps),
            "maps_per_class": torch.bincount(self.masked_maps.labels.long()).tolist(),
            "bytes": {"maps": self.masked_maps.nbytes, "memory": self.memory.nbytes, "all": self.nbytes},
            "bytes_of_whole_maps": whole,
            "recall_error": round(recall_error(newest, maps), 4),
        }
        if isinstance(self.memory, HopfieldMemory):
            details["note"] = "a Hopfield memory holds whole patterns: masking saves nothing, and its cues come on top"
        return details

    def dump(self) -> tuple[bytes, bytes]:
        """The maps and the memory as bytes."""
        return self.masked_maps.dump(), self.memory.dump()

    @classmethod
    def load(cls, settings: SharcSettings, masked_maps: bytes, memory: bytes) -> ReplayMemory:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        return cls(MaskedMaps.load(masked_maps), KINDS[settings.recall].load(memory))
