"""Examples as engrams are shown them: images, or maps of a network, spilled to disk."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass, replace
from typing import Self

import numpy
import torch
from torch import Tensor

from engram.context import LearnContext
from engram.data.examples import Examples
from engram.nn.batches import in_parts, pictures_at_once
from engram.nn.commons import Commons
from engram.recognition.training import features_of

MOST_IN_MEMORY = 256 * 2**20
"""Bytes of maps that are kept in memory; more lie in a file without a name, which is gone with the process."""


@dataclass(frozen=True)
class ShownExamples:
    """Examples whose images are looked at part by part, and what engrams read of them."""

    commons: Commons
    context: LearnContext
    images: Tensor
    """(N, C, H, W) uint8."""
    examples: Examples
    """The same images, or maps (N, channels, side, side) uint8 that are written as they are seen."""

    @classmethod
    def of(cls, commons: Commons, examples: Examples, context: LearnContext) -> Self:
        """Of examples; maps are blank until their images are looked at."""
        if commons.maps is None:
            return cls(commons, context, examples.images, examples)
        channels, side = commons.maps
        maps = _blank((len(examples), channels, side, side))
        return cls(commons, context, examples.images, replace(examples, images=maps))

    def see(self, chosen: Tensor) -> Tensor:
        """Features (n, F) on the CPU of some images (n,); raises Cancelled."""
        images, context = self.images[chosen], self.context
        if self.commons.maps is None:
            return features_of(self.commons, images, context.device, context.reporter)

        def seen(part: Tensor) -> tuple[Tensor, ...]:
            features, maps = self.commons.mapped(part.to(context.device))
            return features.cpu(), maps.cpu()

        features, maps = in_parts(images, min(16, pictures_at_once(images)), seen, context.reporter.check)
        self.examples.images[chosen] = maps
        return features


def _blank(shape: tuple[int, ...]) -> Tensor:
    """A tensor of zeros, uint8, in memory or in a file; raises OSError where the disk has no room for it."""
    size = int(numpy.prod(shape))
    if size <= MOST_IN_MEMORY:
        return torch.zeros(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile() as file:
        if sys.platform == "linux":  # else a full disk would end the process (SIGBUS) where a map is written
            os.posix_fallocate(file.fileno(), 0, size)
        return torch.from_numpy(numpy.memmap(file, numpy.uint8, "w+", shape=shape))
