"""Exact sums over the commons: all that is kept of the training images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-4
"""The ridge, as a share of the mean diagonal of the Gram matrix."""


@dataclass(frozen=True)
class Sums:
    """Sufficient statistics of ridge regression from features to classes, in float64.

    Sums do not depend on the order of images or tasks, and adding to them is exact arithmetic, not learning.

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
    def empty(cls, features: int) -> Sums:
        size = features + 1
        return cls(
            torch.zeros(size, size, dtype=torch.float64),
            torch.zeros(size, 0, dtype=torch.float64),
            torch.zeros(0, dtype=torch.float64),
        )

    def widened(self, classes: int) -> Sums:
        """The same sums with room for so many further classes."""
        rows = self.moments.shape[0]
        return Sums(
            self.gram,
            torch.cat([self.moments, torch.zeros(rows, classes, dtype=torch.float64)], 1),
            torch.cat([self.counts, torch.zeros(classes, dtype=torch.float64)]),
        )

    def plus(self, features: Tensor, labels: Tensor) -> Sums:
        """The sums with more images: features (N, F), labels (N,) as indices into all classes."""
        count = len(features)
        phi = torch.cat([features.double(), torch.ones(count, 1, dtype=torch.float64)], 1)  # (N, F + 1)
        hot = torch.nn.functional.one_hot(labels, self.moments.shape[1]).double()  # (N, classes)
        product = phi.T @ phi
        product = (product + product.T) / 2  # symmetric to the last bit, so that storing one half loses nothing
        return Sums(self.gram + product, self.moments + phi.T @ hot, self.counts + hot.sum(0))

    def solve(self) -> Tensor:
        """Ridge regression onto one-hot labels: weights (F + 1, classes) float32.

        A constant ridge on the diagonal, scaled by its mean, keeps the system positive definite whatever the data.
        """
        ridge = RIDGE * float(self.gram.diagonal().mean())
        regular = self.gram + ridge * torch.eye(len(self.gram), dtype=torch.float64)
        factor = torch.linalg.cholesky(regular)
        return torch.cholesky_solve(self.moments, factor).float()

    def packed(self) -> Tensor:
        """The upper triangle of the Gram matrix, row by row: it is symmetric, so half of it is enough."""
        rows, columns = torch.triu_indices(*self.gram.shape)
        return self.gram[rows, columns].contiguous()

    @classmethod
    def unpacked(cls, triangle: Tensor, moments: Tensor, counts: Tensor) -> Sums:
        """The inverse of `packed`."""
        size = len(moments)
        rows, columns = torch.triu_indices(size, size)
        gram = torch.zeros(size, size, dtype=torch.float64)
        gram[rows, columns] = triangle
        gram[columns, rows] = triangle
        return cls(gram, moments, counts)
