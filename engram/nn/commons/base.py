"""What every commons is: features of images that never change once there is a task."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Self, cast

import torch
from torch import Tensor, nn

from engram.checkpointing.progress import Reporter
from engram.errors import CommonsNeedsClasses
from engram.nn.commons.outputs import Outputs
from engram.nn.commons.ridges import OF_FILTERS, Ridges

SAMPLE = 16384
"""Images of the first task that filters are learned from at most."""


@dataclass(frozen=True)
class Look:
    """What a version's networks are shown of B images, computed once."""

    given: Tensor
    """(B, C, H, W) float32 in [0, 1] on the commons' device: what engrams read, the pixels or a network's maps."""
    features: Tensor
    """(B, F) float32 on the CPU."""
    logits: Tensor | None = None
    """(B, outputs) float32 on the CPU: of a network's own classifier, where there is one."""

    def __getitem__(self, rows: slice) -> Look:
        """The same, for some of the images."""
        return Look(self.given[rows], self.features[rows], None if self.logits is None else self.logits[rows])


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

    def look(self, images: Tensor) -> Look:
        """What is shown of images (B, C, H, W) uint8 on the commons' device."""
        return Look(images.to(torch.float32) / 255.0, self.of_bytes(images).cpu())

    @property
    def maps(self) -> tuple[int, int] | None:
        """Channels and side of the maps that engrams read in place of the pixels; None where they read these."""
        return None

    def mapped(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and maps (B, channels, side, side) uint8 of images (B, C, H, W) uint8, where it has maps."""
        raise AssertionError("commons without maps are not asked for any")

    def place(self, device: torch.device) -> None:
        """Answer on a device from now on, a network that was brought as well; learning is left to `to`.

        A network that ONNX Runtime runs stays on the processor.
        """
        self.to(device)

    def placed(self, device: torch.device) -> Self:
        """A copy that answers on a device."""
        other = copy.deepcopy(self)
        other.place(device)
        return other

    def outputs(self) -> Outputs | None:
        """What features say by a network's own classifier; None where there is none, or it is not linear in them."""
        return None

    def require(self) -> None:
        """Raise EngineMissing or AnswersDiffer where what computes it cannot do so here."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each of the commons that stand side by side, or of those together that one regression reads."""
        return (self.features,)

    @property
    def steps(self) -> tuple[float, ...]:
        """The step of each of them, where features are on a grid."""
        assert self.step is not None, "staged models have commons on a grid"
        return (self.step,)

    @property
    def ridges(self) -> tuple[Ridges, ...]:
        """What regressions over each of them may add."""
        return (OF_FILTERS,)

    def canonical(self, images: Tensor) -> Tensor:
        """The features that learning adds to sums."""
        return cast(Tensor, self(images))


def sample(images: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the images that filters are learned from, on the CPU."""
    return images[torch.randperm(len(images), generator=generator)[:SAMPLE]].cpu()
