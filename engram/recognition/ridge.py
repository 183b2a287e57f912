"""Ridge regression from exact Gram matrices, accumulated task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.checkpointing.triangles import symmetric, triangle
from engram.errors import DamagedSnapshot

RIDGE = 1e-4
"""The ridge, as a share of the mean diagonal of the Gram matrix."""


@dataclass(frozen=True)
class GramStatistics:
    """Sufficient statistics of ridge regression from features to the classes of one task, in float64.

    Sums do not depend on the order of images, and adding to them is exact arithmetic, not learning.

    Parameters
    ----------
    gram
        (F + 1, F + 1): the sum of phi phi^T, phi being the features with a one appended.
    moments
        (F + 1, classes): the sum of phi over each class.
    counts
        (classes,): images of each class.
    """

    gram: Tensor
    moments: Tensor
    counts: Tensor

    @classmethod
    def empty(cls, features: int, classes: int) -> GramStatistics:
        size = features + 1
        return cls(
            torch.zeros(size, size, dtype=torch.float64),
            torch.zeros(size, classes, dtype=torch.float64),
            torch.zeros(classes, dtype=torch.float64),
        )

    def plus(self, features: Tensor, labels: Tensor) -> GramStatistics:
        """The sums with more images: features (N, F), labels (N,)."""
        count = len(features)
        phi = torch.cat([features.double(), torch.ones(count, 1, dtype=torch.float64)], 1)  # (N, F + 1)
        hot = torch.nn.functional.one_hot(labels, self.moments.shape[1]).double()  # (N, classes)
        product = phi.T @ phi
        product = (product + product.T) / 2  # symmetric to the last bit, so that storing one half loses nothing
        return GramStatistics(self.gram + product, self.moments + phi.T @ hot, self.counts + hot.sum(0))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the sums are made of."""
        return self.gram, self.moments, self.counts

    def packed(self) -> PackedGram:
        """The same in half the room."""
        return PackedGram(triangle(self.gram), self.moments, self.counts)


@dataclass(frozen=True)
class PackedGram:
    """Gram statistics as they are stored: the triangle of the symmetric matrix alone.

    Parameters
    ----------
    triangle
        ((F + 1)(F + 2) / 2,): the upper triangle of the Gram matrix, row by row; it is symmetric, so half is enough.
    moments, counts
        As in `GramStatistics`.
    prefixes
        The same images over the prefix features of each task so far, where a method has prefixes that never change:
        real negatives for all earlier tasks.
    """

    triangle: Tensor
    moments: Tensor
    counts: Tensor
    prefixes: tuple[PackedGram, ...] = ()

    def gram(self) -> Tensor:
        """The whole matrix (F + 1, F + 1)."""
        return symmetric(self.triangle, len(self.moments))

    def means(self) -> Tensor:
        """(F + 1, classes): the mean of each class, its last value a one."""
        return self.moments / self.counts

    def scatter(self) -> Tensor:
        """(F + 1, F + 1): the sum of squares around the classes' means; nothing in the row and column of the ones."""
        return self.gram() - self.moments @ self.means().T


@dataclass(frozen=True)
class RidgeSystem:
    """Ridge regression onto one-hot labels over the tasks whose sums are given, in float64.

    Leaving a task's sums out is forgetting it exactly: the weights are those of a model that never saw it. A constant
    ridge on the diagonal, scaled by its mean, keeps the system positive definite whatever the data.

    Parameters
    ----------
    factor
        (F + 1, F + 1): the lower Cholesky factor of the regularised Gram matrix over all tasks.
    moments
        (F + 1, classes of all tasks).
    shares
        For each task, what one of its images counts; by class, in the scatter within classes.
    by_class
        Whether every class counts alike.
    """

    factor: Tensor
    moments: Tensor
    shares: tuple[float, ...]
    by_class: bool = False

    @classmethod
    def of(cls, pieces: Sequence[PackedGram], *, balanced: bool = True, by_class: bool = False) -> Self:
        """The system of some tasks.

        Parameters
        ----------
        balanced
            Whether tasks count by their classes instead of by their images, so that a large one does not draw the
            images of small ones to itself.
        by_class
            Whether classes count alike within their task too: their means with the same weight, and around them the
            scatter that the task's classes have in common, which the images of all of them tell of. Of classes with
            equally many images that is the same sum.
        """
        images, classes = sum(float(piece.counts.sum()) for piece in pieces), sum(len(piece.counts) for piece in pieces)
        size = len(pieces[0].moments)
        gram, moments, shares = torch.zeros(size, size, dtype=torch.float64), [], []
        for piece in pieces:
            share = images / classes * len(piece.counts) / float(piece.counts.sum()) if balanced or by_class else 1.0
            if by_class:
                means, weight = piece.means(), images / classes  # (F + 1, classes of the task)
                gram += share * piece.scatter() + weight * means @ means.T
                moments.append(weight * means)
            else:
                gram += share * piece.gram()
                moments.append(share * piece.moments)
            shares.append(share)
        gram += RIDGE * float(gram.diagonal().mean()) * torch.eye(size, dtype=torch.float64)
        return cls(torch.linalg.cholesky(gram), torch.cat(moments, 1), tuple(shares), by_class)

    def weights(self) -> Tensor:
        """(F + 1, classes of all tasks)."""
        return torch.cholesky_solve(self.moments, self.factor)


def solve(pieces: Sequence[PackedGram], *, balanced: bool = True, by_class: bool = False) -> Tensor:
    """The weights (F + 1, classes) of the `RidgeSystem` of some tasks, as float32."""
    return RidgeSystem.of(pieces, balanced=balanced, by_class=by_class).weights().float()


def dump_sums(sums: PackedGram) -> bytes:
    """One task's sums as bytes."""
    tensors = _named_sums(sums, "")
    for number, prefix in enumerate(sums.prefixes):
        tensors |= _named_sums(prefix, f"{number}.")
    return pack("sums", {"prefixes": len(sums.prefixes)}, tensors)


def _named_sums(sums: PackedGram, before: str) -> dict[str, torch.Tensor]:
    return {f"{before}gram": sums.triangle, f"{before}moments": sums.moments, f"{before}counts": sums.counts}


def load_sums(data: bytes) -> PackedGram:
    """One task's sums; raises DamagedSnapshot, UnsupportedFormat."""
    about, tensors = unpack("sums", data)
    prefixes = tuple(_read_sums(tensors, f"{number}.") for number in range(cast(int, about.get("prefixes", 0))))
    return replace(_read_sums(tensors, ""), prefixes=prefixes)


def _read_sums(tensors: Mapping[str, torch.Tensor], before: str) -> PackedGram:
    try:
        sums = PackedGram(tensors[f"{before}gram"], tensors[f"{before}moments"], tensors[f"{before}counts"])
    except KeyError as error:
        raise DamagedSnapshot(f"the sums lack {error}") from error
    size = len(sums.moments)
    if len(sums.triangle) != size * (size + 1) // 2 or sums.moments.shape[1] != len(sums.counts):
        raise DamagedSnapshot("the parts of the sums do not fit each other")
    return sums
