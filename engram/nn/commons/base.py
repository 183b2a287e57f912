"""What every commons is: features of images that never change once there is a task."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self, cast

import torch
from torch import Tensor, nn

from engram.checkpointing.progress import Reporter
from engram.errors import CommonsNeedsClasses

SAMPLE = 16384
"""Images of the first task that filters are learned from at most."""


class Commons(nn.Module):
    """Block 0, (B, C, H, W) float32 in [0, 1] -> (B, features) float32.

    Because they never change once there is a task, exact sums over them can be accumulated task by task without keeping
    an image.
    """

    features: int
    """Number of features."""
    step: float | None = None
    """What every feature is a multiple of, at most 4095 times; None where features are on no grid."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    @abstractmethod
    def fixed(self) -> bool:
        """Whether the features are there already; learned ones come with the first task."""

    @property
    def needs_images(self) -> bool:
        """Whether filters are still to be learned from the first task's images."""
        return not self.fixed

    def check_classes(self, count: int) -> None:
        """Raise CommonsNeedsClasses where filters would be learned from the images of a single class."""
        if count < 2 and self.needs_images:
            raise CommonsNeedsClasses(
                "filters of the commons are not learned from a single class: define the model with "
                'commons.dictionary "dead_leaves", or begin with a task of several classes'
            )

    @abstractmethod
    def fitted(self, images: Tensor, reporter: Reporter | None = None) -> Self:
        """Commons with filters learned from images (N, C, H, W) uint8; what is fixed already stays as it is.

        Raises
        ------
        Cancelled
        """

    def of_bytes(self, images: Tensor) -> Tensor:
        """The same features, of images (B, C, H, W) uint8 on the commons' device."""
        return cast(Tensor, self(images.to(torch.float32) / 255.0))

    def canonical(self, images: Tensor) -> Tensor:
        """The features that learning adds to sums."""
        return cast(Tensor, self(images))


def sample(images: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the images that filters are learned from, on the CPU."""
    return images[torch.randperm(len(images), generator=generator)[:SAMPLE]].cpu()
