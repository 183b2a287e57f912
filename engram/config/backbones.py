"""Descriptions of networks that users bring, as they are stored."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator

from engram.config.base import Frozen

LARGEST_INPUT = 1024
"""Pixels a side that a network may be given."""

Argument = StrictBool | StrictInt
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Preprocessing(Frozen):
    """The way from the pixels of an image to the numbers that a network is given.

    `engram.nn.pretrained.preprocessing.prepare` does it; `crop` is the decoder's, which sees the image's own size.
    """

    size: int = Field(ge=16, le=LARGEST_INPUT)
    """Side of the square that the network is given, in pixels."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    """How images of another size are resized; antialiased."""
    crop: float = Field(default=1.0, gt=0, le=1)
    """Share of the shorter side that is kept when an image file is decoded."""
    mean: tuple[Finite, Finite, Finite]
    """Of red, green and blue, from 0 to 1; what is subtracted."""
    std: tuple[Finite, Finite, Finite]
    """What is divided by."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self


class Level(Frozen):
    """A place in a network whose output is read."""

    name: str
    """Path of the module, such as `layer2` or `blocks.5`."""
    channels: int = Field(ge=1)
    reduction: int = Field(ge=1)
    """Pixels of the input a side for each cell of the map; of tokens, the patch's side."""
    layout: Literal["maps", "channels_last", "tokens"] = "maps"
    """Axes of what the module puts out: (B, C, h, w), (B, h, w, C) or (B, prefix + h * w, C)."""
    prefix: int = Field(default=0, ge=0)
    """Tokens before those of the patches, such as the class token; they are left out."""


class BackboneDescription(Frozen):
    """A network that a user brought, as it is stored and as models name it in their definition."""

    architecture: str
    """`torchvision/resnet18`, `timm/tf_efficientnet_lite0`, or the name of an entry point."""
    arguments: dict[str, Argument] = Field(default_factory=dict)
    """What the architecture is built with, from the allow-list."""
    library: str
    """Name and version of the package that the architecture comes from, such as `torchvision 0.28.0`."""
    weights: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the safetensors file."""
    bytes: int = Field(ge=0)
    """Length of the safetensors file."""
    parameters: int = Field(ge=0)
    operations: int = Field(ge=0)
    """Multiply-adds of one image."""
    preprocessing: Preprocessing
    levels: tuple[Level, ...] = Field(min_length=1)
    """From the finest to the coarsest."""
    features: int = Field(ge=1)
    """Width of what the classifier reads."""
    outputs: int = Field(ge=0)
    """Logits; 0 without a classifier."""
    classes: tuple[str, ...] | None = None
    """Names of the outputs, where they were given."""
    licence: str | None = None
    """Of the weights, as the user or the file names it."""
    format: Literal[1] = 1
