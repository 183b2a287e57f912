"""The commons, block 0: features fixed when the model is created.

Because it never changes, exact sums over it can be accumulated task by task without keeping an image.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.definition import Definition

GRID = 4
"""Responses are averaged over a grid of so many cells a side."""

LARGEST_SIDE = 64
"""Images are averaged down until their shorter side is under twice this: the cost stays that of a small image."""

CHUNK = 16
"""Images computed at a time: their maps stay in the processor's cache."""


def smooth_filters(count: int, channels: int, patch: int, generator: torch.Generator) -> Tensor:
    """Random filters (count, channels, patch, patch) with the spectrum of natural images, zero mean and unit length.

    Coefficients of a cosine transform are drawn with an amplitude that falls with the spatial frequency.
    """
    steps = torch.arange(patch, dtype=torch.float64)
    basis = torch.cos(torch.pi * (steps[None, :] + 0.5) * steps[:, None] / patch)  # (frequency, position)
    amplitude = 1 / (1 + steps[:, None] ** 2 + steps[None, :] ** 2).sqrt()  # (frequency, frequency)
    drawn = torch.randn(count, channels, patch, patch, generator=generator, dtype=torch.float64) * amplitude
    filters = torch.einsum("ncuv,ux,vy->ncxy", drawn, basis, basis)
    filters = filters - filters.mean((1, 2, 3), keepdim=True)
    lengths = filters.square().sum((1, 2, 3), keepdim=True).sqrt()
    return (filters / lengths).float()


class Commons(nn.Module):
    """Fixed local features of an image: filter responses over local contrast, both signs, averaged over a grid.

    (B, C, H, W) float32 in [0, 1] -> (B, features) float32, each the square root of a mean of rectified responses.
    """

    threshold = 0.1
    contrast_floor = 0.1

    def __init__(self, definition: Definition) -> None:
        super().__init__()
        shape = definition.input
        self.shrink = max(1, min(shape.height, shape.width) // LARGEST_SIDE)
        patch = min(definition.commons.patch, min(shape.height, shape.width) // self.shrink)
        count = definition.commons.features // (2 * GRID * GRID)
        self.patch = patch
        self.features = 2 * GRID * GRID * count
        self.filters = nn.Conv2d(shape.channels, count, patch, bias=False)
        generator = torch.Generator().manual_seed(definition.seed)
        with torch.no_grad():
            self.filters.weight.copy_(smooth_filters(count, shape.channels, patch, generator))
        self.filters.weight.requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        if self.shrink > 1:
            images = F.avg_pool2d(images, self.shrink)
        return torch.cat([self._features(part) for part in torch.split(images, CHUNK)])  # (B, features)

    def _features(self, images: Tensor) -> Tensor:
        values = images.shape[1] * self.patch**2
        mean = F.avg_pool2d(images, self.patch, 1).mean(1, keepdim=True)  # (b, 1, H', W')
        power = F.avg_pool2d(images * images, self.patch, 1).mean(1, keepdim=True)  # (b, 1, H', W')
        contrast = ((power - mean * mean).clamp_min(0) * values + self.contrast_floor).sqrt()
        responses = cast(Tensor, self.filters(images)) / contrast  # (b, filters, H', W')
        signed = [F.relu(responses - self.threshold), F.relu(-responses - self.threshold)]
        pooled = torch.cat([F.adaptive_avg_pool2d(part, GRID) for part in signed], 1)  # (b, 2 filters, GRID, GRID)
        return pooled.flatten(1).sqrt()
