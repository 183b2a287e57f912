"""First filters from the patches that set a small class apart from the largest one.

From a dozen images gradient descent learns their noise by heart sooner than it finds a mark of a few pixels, wherever
that lies. A patch that is unusual among those of the largest class is where to look first: whitened by their
covariance it is, as a filter, Fisher's discriminant between it and them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.data.examples import Examples, small_classes
from engram.nn.blocks import ConvBlock
from engram.nn.layout import IMAGE
from engram.nn.network import Engram, pixels

FILTERS = 8
"""Filters that a small class gives at most; those of all small classes take half of the layer's units at most."""

COMMON_IMAGES = 256
"""Images of the largest class, at most, whose patches tell what is usual."""

PATCHES_PER_IMAGE = 64
"""Of each of them."""

SMALL_IMAGES = 64
"""Images of a small class, at most, that are looked at."""

RIDGE = 1e-2
"""Added to the variance of every direction, as a share of the mean."""

ALIKE = 0.8
"""Two patches whose cosine is larger are one filter."""


@torch.no_grad()
def start_from_patches(
    engram: Engram,
    train: Examples,
    generator: torch.Generator,
    free: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Give some filters of a new network's first convolution the patches that set its small classes apart.

    Nothing is done where no class is small, or where the first layer is no convolution.

    Parameters
    ----------
    engram
        Not trained yet; changed in place.
    free
        (units,) bool: the filters that may be changed; by default all.
    weight
        (units, C, k, k): what holds the filters, where that is not the convolution's own weight.

    Returns
    -------
    (n,) int64: the filters that were changed.
    """
    node = engram.layout.nodes[0]
    block, small = engram.block(node), small_classes(train)
    if not small or not isinstance(block, ConvBlock) or node.sources != (IMAGE,):
        return torch.zeros(0, dtype=torch.int64)
    weight = block.conv.weight if weight is None else weight
    rows = torch.arange(len(weight)) if free is None else free.cpu().nonzero().flatten()
    each = min(FILTERS, len(rows) // 2 // len(small))
    if not each:
        return rows[:0]
    usual = _Usual.of(train, node.kernel, generator)
    found = torch.cat([usual.distinctive(train, label, each, generator) for label in small])  # (n, values)
    size = weight.flatten(1).norm(dim=1).mean().cpu()
    filters = (F.normalize(found, dim=1) * size).reshape(-1, *weight.shape[1:])
    rows = rows[: len(filters)]
    weight[rows] = filters.to(weight)
    return rows


class _Usual:
    """Mean and covariance of the patches of the largest class."""

    def __init__(self, patches: Tensor, kernel: int) -> None:
        """Of patches (P, values)."""
        given = patches.double()
        self._kernel = kernel
        self._mean = given.mean(0)
        centred = given - self._mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / max(1, len(given) - 1))
        spread = values.clamp_min(0) + RIDGE * values.mean().clamp_min(1e-12)
        self._whitening = vectors @ (spread.rsqrt()[:, None] * vectors.T)  # (values, values)

    @classmethod
    def of(cls, train: Examples, kernel: int, generator: torch.Generator) -> _Usual:
        counts = torch.tensor(train.counts())
        parts = []
        for image in _some(train, int(counts.argmax()), COMMON_IMAGES, generator):
            patches = _patches(image, kernel)
            parts.append(patches[torch.randperm(len(patches), generator=generator)[:PATCHES_PER_IMAGE]])
        return cls(torch.cat(parts), kernel)

    def distinctive(self, train: Examples, label: int, most: int, generator: torch.Generator) -> Tensor:
        """(<= most, values) float32: filters that answer to the most unusual patches of a class's images, those first
        that are most like the others."""
        found = []
        for image in _some(train, label, SMALL_IMAGES, generator):
            white = (_patches(image, self._kernel).double() - self._mean) @ self._whitening  # (places, values)
            found.append(white[white.norm(dim=1).argmax()])
        patches = F.normalize(torch.stack(found), dim=1)
        alike = patches @ patches.T
        chosen: list[int] = []
        for number in alike.clamp_min(0).square().sum(1).sort(descending=True, stable=True).indices.tolist():
            if len(chosen) < most and all(float(alike[number, other]) < ALIKE for other in chosen):
                chosen.append(number)
        filters: Tensor = patches[chosen] @ self._whitening
        return filters.float()


def _some(train: Examples, label: int, most: int, generator: torch.Generator) -> Tensor:
    """(<= most, C, H, W) uint8: images of a class."""
    members = (train.labels == label).nonzero().flatten()
    return train.images[members[torch.randperm(len(members), generator=generator)[:most]]]


def _patches(image: Tensor, kernel: int) -> Tensor:
    """(places, C x kernel x kernel) float32 of one image (C, H, W) uint8."""
    patches: Tensor = F.unfold(pixels(image[None]), kernel)[0].T
    return patches
