"""Architecture, the interface between the networks that libraries can build and what is read of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, NamedTuple

from torch import nn

from engram.config.backbones import Argument, Preprocessing

NUM_CLASSES = "num_classes"
IMG_SIZE = "img_size"
DYNAMIC = "dynamic_img_size"


class Place(NamedTuple):
    """A module whose output is read, and the layout of that output."""

    name: str
    """Path of the module."""
    layout: Literal["maps", "channels_last", "tokens"] = "maps"
    prefix: int = 0
    """Tokens to be left out before those of the patches."""


class Architecture(ABC):
    """A network that can be built without weights: what a distribution's entry point `engram.backbones` names.

    Building neither loads nor downloads anything, and works under `torch.device("meta")`.
    """

    name: str
    """As users write it."""
    library: str
    """Name and version of the package that it comes from."""
    arguments: frozenset[str] = frozenset({NUM_CLASSES})
    """Which arguments `build` takes: of `num_classes`, where 0 leaves the classifier out, `img_size`, and
    `dynamic_img_size`."""

    @abstractmethod
    def build(self, arguments: Mapping[str, Argument]) -> nn.Module:
        """The network, whose forward takes float32 (B, 3, size, size) and gives logits (B, outputs)."""

    @abstractmethod
    def places(self, module: nn.Module) -> tuple[Place, ...]:
        """What is read of a network that was built, from the finest level to the coarsest."""

    @abstractmethod
    def classifier(self, module: nn.Module) -> str:
        """Path of the module that reads the features and gives the logits; an identity where there is no classifier."""

    @abstractmethod
    def preprocessing(self, arguments: Mapping[str, Argument]) -> Preprocessing:
        """What the library's own weights were made for."""

    def for_size(self, arguments: Mapping[str, Argument], size: int) -> dict[str, Argument]:
        """The arguments by which the same weights take images of this side, in pixels, where there are such."""
        return dict(arguments)
