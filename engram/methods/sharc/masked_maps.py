"""Masked, quantised feature maps as they are stored: a bit per channel, small numbers for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.data.herding import distinct_labels
from engram.errors import DamagedSnapshot

Values = Literal["uint8", "float16"]

_LEVELS = 255


def quantised(rows: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Non-negative numbers (N, M) as small ones (N, M), with a float16 step for each row: (N,), or (0,) for float16."""
    if values == "float16":
        return rows.to(torch.float16), torch.zeros(0, dtype=torch.float16)
    steps = (rows.amax(1) / _LEVELS).to(torch.float16)
    divisors = torch.where(steps > 0, steps.float(), 1.0)
    return (rows / divisors[:, None]).round().clamp(0, _LEVELS).to(torch.uint8), steps


def restored(small: Tensor, steps: Tensor) -> Tensor:
    """The inverse of `quantised`, in float32."""
    return small.float() * steps.float()[:, None] if len(steps) else small.float()


@dataclass(frozen=True)
class MaskedMaps:
    """Masked maps of `channels` by `places` with their labels; earlier rows of a class are kept longer than later ones.

    Parameters
    ----------
    bits
        (N, channels / 8, rounded up) uint8: which channels stay, eight to a byte; shorter than any list of indices
        unless fewer than an eighth of them stay.
    small, steps
        As `quantised` gives them: (N, kept channels x places), channel after channel.
    labels
        (N,) int16.
    """

    bits: Tensor
    small: Tensor
    steps: Tensor
    labels: Tensor
    channels: int
    places: int

    @classmethod
    def empty(cls, channels: int, places: int, kept: int, values: Values) -> MaskedMaps:
        nothing = torch.zeros(0, kept * places)
        bits = torch.zeros(0, -(-channels // 8), dtype=torch.uint8)
        kind = torch.uint8 if values == "uint8" else torch.float16
        steps = torch.zeros(0, dtype=torch.float16)
        return cls(bits, nothing.to(kind), steps, torch.zeros(0, dtype=torch.int16), channels, places)

    @classmethod
    def of(cls, maps: Tensor, masks: Tensor, labels: Tensor, values: Values) -> MaskedMaps:
        """Store maps (N, channels, places) where masks (N, channels) say so; every mask keeps equally many channels."""
        count, channels, places = maps.shape
        padded = torch.nn.functional.pad(masks.to(torch.uint8), (0, -channels % 8)).view(count, -(-channels // 8), 8)
        weights = 2 ** torch.arange(8, dtype=torch.uint8)
        bits = (padded * weights).sum(2).to(torch.uint8)  # (N, bytes)
        small, steps = quantised(maps[masks].view(count, int(masks[:1].sum()) * places), values)
        return cls(bits, small, steps, labels.to(torch.int16), channels, places)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        """What the rows take."""
        return sum(part.numel() * part.element_size() for part in self._parts().values())

    def masks(self) -> Tensor:
        """(N, channels) bool."""
        spread = self.bits[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1  # (N, bytes, 8)
        return spread.flatten(1)[:, : self.channels].bool()

    def cues(self) -> Tensor:
        """(N, channels, places) float32: what was stored, and zero elsewhere."""
        maps = torch.zeros(len(self), self.channels, self.places)
        maps[self.masks()] = restored(self.small, self.steps).reshape(-1, self.places)
        return maps

    def joined(self, other: MaskedMaps) -> MaskedMaps:
        """These rows and then those."""
        pairs = zip(self._parts().values(), other._parts().values(), strict=True)
        bits, small, steps, labels = (torch.cat(pair) for pair in pairs)
        return MaskedMaps(bits, small, steps, labels, self.channels, self.places)

    def subset(self, rows: Tensor) -> MaskedMaps:
        """The rows (int64), in that order."""
        steps = self.steps[rows] if len(self.steps) else self.steps
        return MaskedMaps(self.bits[rows], self.small[rows], steps, self.labels[rows], self.channels, self.places)

    def first(self, quota: int) -> Tensor:
        """Indices of the first `quota` rows of every class, ascending: what stays when each class may keep so many."""
        kept = [(self.labels == label).nonzero().flatten()[:quota] for label in distinct_labels(self.labels)]
        return torch.cat(kept).sort().values if kept else torch.zeros(0, dtype=torch.int64)

    def dump(self) -> bytes:
        """The rows as bytes."""
        return pack("episodes", {"channels": self.channels, "places": self.places}, self._parts())

    @classmethod
    def load(cls, data: bytes) -> MaskedMaps:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("episodes", data)
        try:
            bits, small, steps, labels = (tensors[name] for name in ("bits", "small", "steps", "labels"))
            found = cls(bits, small, steps, labels, cast(int, about["channels"]), cast(int, about["places"]))
        except KeyError as error:
            raise DamagedSnapshot(f"the stored maps lack {error}") from error
        if {len(found.bits), len(found.small), len(found.steps) or len(found)} != {len(found)}:
            raise DamagedSnapshot("the parts of the stored maps do not fit each other")
        return found

    def _parts(self) -> Mapping[str, Tensor]:
        return {"bits": self.bits, "small": self.small, "steps": self.steps, "labels": self.labels}


def bytes_each(channels: int, places: int, kept: int, values: Values) -> int:
    """What one row of `MaskedMaps` takes."""
    one = torch.zeros(1, channels, places)
    masks = (torch.arange(channels) < kept)[None]
    return MaskedMaps.of(one, masks, torch.zeros(1), values).nbytes


def quota(memory_bytes: int, fixed: int, each: Sequence[int], classes: int) -> int:
    """Rows that every class may keep: what is left of the budget after `fixed` bytes, in rows of sum(each) bytes."""
    return max(0, memory_bytes - fixed) // (sum(each) * classes)
