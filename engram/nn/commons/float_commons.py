"""The commons of recipes 1 and 2, whose features are rounded as float32 rounds."""

from __future__ import annotations

import copy
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.checkpointing.progress import Reporter
from engram.config.definition import Definition
from engram.nn.commons.bank import CONTRAST_FLOOR, THRESHOLD
from engram.nn.commons.base import Commons, sample
from engram.nn.commons.filters import learned_filters, smooth_filters

CHUNK = 16
"""Images computed at a time: their maps stay in the processor's cache."""


class FloatCommons(Commons):
    """Local features of an image: filter responses over local contrast, both signs, averaged over a grid.

    (B, C, H, W) float32 in [0, 1] -> (B, features) float32. The filters of the `smooth` kind are drawn when the model
    is created, and the square root is taken of each average; those of the `learned` kind come from the images of the
    first task (`fitted`).
    """

    def __init__(self, definition: Definition) -> None:
        super().__init__()
        shape, wanted = definition.input, definition.filters.resolved(definition.input)
        self.kind, self.grid = wanted.kind, wanted.grid
        self.shrink = shape.shrink
        self.patch = min(wanted.patch, min(shape.height, shape.width) // self.shrink)
        count = wanted.features // (2 * self.grid**2)
        self.features = 2 * self.grid**2 * count
        values = shape.channels * self.patch**2
        self.contrast_floor = CONTRAST_FLOOR[self.kind] * (values if self.kind == "learned" else 1)
        self.threshold = THRESHOLD[self.kind]
        self.filters = nn.Conv2d(shape.channels, count, self.patch, bias=False)
        self.filters.weight.requires_grad_(False)
        self.register_buffer("offsets", torch.zeros(count))
        self._seed = definition.seed
        generator = torch.Generator().manual_seed(self._seed)
        with torch.no_grad():
            if self.kind == "smooth":
                self.filters.weight.copy_(smooth_filters(count, shape.channels, self.patch, generator))
            else:
                self.filters.weight.zero_()

    @property
    def device(self) -> torch.device:
        return self.filters.weight.device

    @property
    def fixed(self) -> bool:
        return bool(self.filters.weight.any())

    @torch.no_grad()
    def fitted(self, images: Tensor, reporter: Reporter | None = None) -> Self:
        if self.fixed:
            return self
        reporter = reporter or Reporter()
        other = copy.deepcopy(self)
        filters, offsets = reporter.journal.once("filters", lambda: self._learned(images, reporter))
        other.filters.weight.copy_(filters)
        cast(Tensor, other.offsets).copy_(offsets)
        return other

    def _learned(self, images: Tensor, reporter: Reporter) -> tuple[Tensor, Tensor]:
        """As `learned_filters`."""
        generator = torch.Generator().manual_seed(self._seed)
        shrunk = []
        for part in torch.split(sample(images, generator), 256):
            reporter.check()
            shrunk.append(self.shrunk(part.to(torch.float32) / 255.0))
        count = len(self.filters.weight)
        return learned_filters(torch.cat(shrunk), count, self.patch, self.contrast_floor, generator, reporter)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        parts = torch.split(self.shrunk(images), CHUNK)
        return torch.cat([self.pooled(self.responses(part)) for part in parts])  # (B, features)

    def shrunk(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, h, w): large images averaged down."""
        return F.avg_pool2d(images, self.shrink) if self.shrink > 1 else images

    def responses(self, images: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 2 filters, H', W'): how far each filter, then its negative, exceeds the threshold."""
        values = images.shape[1] * self.patch**2
        mean = F.avg_pool2d(images, self.patch, 1).mean(1, keepdim=True)  # (B, 1, H', W')
        power = F.avg_pool2d(images * images, self.patch, 1).mean(1, keepdim=True)  # (B, 1, H', W')
        contrast = ((power - mean * mean).clamp_min(0) * values + self.contrast_floor).sqrt()
        found = cast(Tensor, self.filters(images)) / contrast  # (B, filters, H', W')
        if self.kind == "learned":
            found = found + cast(Tensor, self.offsets)[None, :, None, None]
        return torch.cat([F.relu(found - self.threshold), F.relu(-found - self.threshold)], 1)

    def pooled(self, responses: Tensor, least: float = 0.0) -> Tensor:
        """(B, 2 filters, H', W') -> (B, features): averages over the grid, and the roots of those of the smooth kind.

        `least` bounds what a root is taken of, for who needs its slope.
        """
        averages = F.adaptive_avg_pool2d(responses, self.grid).flatten(1)
        return averages.clamp_min(least).sqrt() if self.kind == "smooth" else averages
