"""Exact sums of a task over features on a grid: whole numbers, the same in any order of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from engram.checkpointing.tensors import pack, unpack
from engram.checkpointing.triangles import triangle
from engram.errors import DamagedSnapshot
from engram.recognition.ridge import PackedGram
from engram.recognition.staged.integers import (
    LARGEST,
    Digits,
    narrowed,
    narrowed_gram,
    of_twelve_bits,
    widened,
    widened_gram,
)

BLOCK = 256
"""Features of a block of the Gram matrix."""

MOST_ADDED = 2**12
"""Whole numbers of 12 bits whose sum float32 holds exactly, whatever their order."""

FEW_CLASSES = 32
"""Up to so many classes a product with ones and zeros is faster than sums over the images of each."""


@dataclass(frozen=True)
class ExactSums:
    """Sums over the images of a task, in steps of the features' grid, as whole numbers in float64.

    Products of features of 12 bits add up without rounding to 2**53: what is added can be taken away again.

    Parameters
    ----------
    gram
        (F, F): the sum of phi phi^T.
    moments
        (F, classes): the sum of phi over each class.
    counts
        (classes,): images of each class.
    step
        What one is of the features' scale, a power of two.
    """

    gram: Tensor
    moments: Tensor
    counts: Tensor
    step: float

    @classmethod
    def empty(cls, features: int, classes: int, step: float) -> Self:
        kind = torch.float64
        return cls(
            torch.zeros(features, features, dtype=kind),
            torch.zeros(features, classes, dtype=kind),
            torch.zeros(classes, dtype=kind),
            step,
        )

    def plus(self, features: Tensor, labels: Tensor) -> Self:
        """The sums with more images: features (N, F) on the grid, labels (N,)."""
        levels = (features * (1 / self.step)).round_()  # the step is a power of two, and so is its inverse
        moments = _class_sums(levels, labels, len(self.counts))
        gram = _squared(levels).add_(self.gram)
        assert float(gram.diagonal().max()) < LARGEST, "so many images have no exact sums"
        counts = torch.bincount(labels, minlength=len(self.counts))
        return replace(self, gram=gram, moments=self.moments + moments, counts=self.counts + counts)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the sums are made of."""
        return self.gram, self.moments, self.counts

    @property
    def images(self) -> float:
        """How many images the sums are over."""
        return float(self.counts.sum())

    def with_constant(self) -> tuple[Tensor, Tensor]:
        """Gram matrix (F + 1, F + 1) and moments (F + 1, classes), a constant of one appended to the features."""
        one = 1 / self.step  # the constant, in steps
        total = self.moments.sum(1)
        gram = pad(self.gram, (0, 1, 0, 1))
        gram[:-1, -1] = gram[-1, :-1] = one * total
        gram[-1, -1] = one * one * self.images
        return gram, torch.cat([self.moments, one * self.counts[None]])

    def packed(self) -> PackedGram:
        """The same as regressions of one task take it."""
        gram, moments = self.with_constant()
        return PackedGram(triangle(gram * self.step**2), moments * self.step, self.counts)

    def dump(self, about: Mapping[str, object]) -> bytes:
        """The sums as bytes, each part in the smallest width that holds it."""
        return pack("exact sums", {**about, **self._header()}, self._narrow())

    @classmethod
    def load(cls, data: bytes) -> ExactSums:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("exact sums", data)
        return _widened(about, tensors)

    def _header(self) -> dict[str, object]:
        return {"step": self.step, "features": len(self.gram)}

    def _narrow(self) -> dict[str, Tensor]:
        parts = {"moments": self.moments.flatten(), "counts": self.counts}
        narrow = {name: narrowed(part.to(torch.int64)) for name, part in parts.items()}
        return {**narrow, **{f"gram.{name}": part for name, part in narrowed_gram(self.gram).items()}}


def _class_sums(levels: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(F, classes) float64: the sums of whole numbers (N, F) over each class of labels (N,)."""
    if not len(levels) or classes > FEW_CLASSES or not of_twelve_bits(levels):
        return torch.stack([levels[labels == label].sum(0, dtype=torch.float64) for label in range(classes)], 1)
    found = torch.zeros(levels.shape[1], classes, dtype=torch.float64)
    hot = one_hot(labels, classes).to(levels)  # (N, classes)
    for some, theirs in zip(torch.split(levels, MOST_ADDED), torch.split(hot, MOST_ADDED), strict=True):
        found += some.T @ theirs
    return found


def _squared(levels: Tensor) -> Tensor:
    """The Gram matrix (F, F) of whole numbers (N, F), in float64: the blocks on and above the diagonal, the rest
    mirrored.

    Sums of whole numbers are the same in any order, so that this is the whole product to the bit.
    """
    size, digits = levels.shape[1], Digits.of(levels)
    found, wide = torch.empty(size, size, dtype=torch.float64), levels.double() if digits is None else levels
    for first in range(0, size, BLOCK):
        end = min(size, first + BLOCK)
        if digits is None:
            torch.mm(wide[:, first:end].T, wide[:, first:], out=found[first:end, first:])
        else:
            found[first:end, first:] = digits.products(first, end)
        found[end:, first:end] = found[first:end, end:].T
    return found


def pairs_of(sums: Mapping[str, ExactSums]) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Header and tensors of sums by name."""
    rows = [{"detector": name, **one._header()} for name, one in sums.items()]
    tensors = {f"{n}.{part}": tensor for n, one in enumerate(sums.values()) for part, tensor in one._narrow().items()}
    return {"pairs": rows}, tensors


def load_pairs(about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> dict[str, ExactSums]:
    """The inverse of `pairs_of`; raises DamagedSnapshot."""
    found = {}
    for n, row in enumerate(cast(Sequence[Mapping[str, object]], about.get("pairs", ()))):
        parts = {name.removeprefix(f"{n}."): tensor for name, tensor in tensors.items() if name.startswith(f"{n}.")}
        found[str(row["detector"])] = _widened(row, parts)
    return found


def _widened(about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> ExactSums:
    try:
        size, step = int(str(about["features"])), float(str(about["step"]))
        gram = widened_gram({name.removeprefix("gram."): part for name, part in tensors.items()}).double()
        moments, counts = (widened(tensors[name]).double() for name in ("moments", "counts"))
        return ExactSums(gram, moments.view(size, len(counts)), counts, step)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise DamagedSnapshot(f"these sums lack {error}") from error
