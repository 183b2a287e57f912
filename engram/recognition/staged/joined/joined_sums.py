"""Exact sums of a task over each of the commons that stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.checkpointing.tensors import kind_of, pack, unpack
from engram.errors import DamagedSnapshot
from engram.recognition.ridge import PackedGram
from engram.recognition.staged.exact_sums import ExactSums, load_pairs, pairs_of

SEVERAL = "exact sums of several"


@dataclass(frozen=True)
class JoinedSums:
    """Sums over the images of a task, of each of the commons; of a single one mostly."""

    each: tuple[ExactSums, ...]

    @classmethod
    def empty(cls, widths: Sequence[int], classes: int, steps: Sequence[float]) -> Self:
        pairs = zip(widths, steps, strict=True)
        return cls(tuple(ExactSums.empty(width, classes, step) for width, step in pairs))

    def plus(self, features: Tensor, labels: Tensor) -> Self:
        """The sums with more images: features (N, F) side by side, labels (N,)."""
        parts = zip(self.each, self.split(features), strict=True)
        return type(self)(tuple(sums.plus(own, labels) for sums, own in parts))

    def split(self, features: Tensor) -> tuple[Tensor, ...]:
        """(N, F) features of each commons."""
        return torch.split(features, [len(sums.gram) for sums in self.each], 1)

    @property
    def counts(self) -> Tensor:
        """(classes,): images of each class."""
        return self.each[0].counts

    def packed(self) -> list[PackedGram]:
        """The same as regressions of one task take it."""
        return [sums.packed() for sums in self.each]

    def dump(self, about: Mapping[str, object]) -> bytes:
        """The sums as bytes."""
        if len(self.each) == 1:
            return self.each[0].dump(about)
        header, tensors = pairs_of({str(number): sums for number, sums in enumerate(self.each)})
        return pack(SEVERAL, {**about, **header}, tensors)

    @classmethod
    def load(cls, data: bytes) -> JoinedSums:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        if kind_of(data) != SEVERAL:
            return cls((ExactSums.load(data),))
        found = load_pairs(*unpack(SEVERAL, data))
        if not found:
            raise DamagedSnapshot("sums of several commons lack all of them")
        return cls(tuple(found.values()))
