"""Measures of a network on the meta device, where nothing is computed: levels, widths, multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from engram.config.backbones import Argument, Level
from engram.errors import BackboneTooLarge, InvalidBackbone, UnsuitedSize
from engram.nn.pretrained.architecture import Architecture
from engram.nn.pretrained.modes import DefinedAttention, Operations
from engram.nn.pretrained.taps import Taps
from engram.nn.pretrained.weights import MOST_PARAMETERS

MOST_OPERATIONS = 500_000_000_000
"""Multiply-adds of one image; some ten seconds of a core."""

Expected = dict[str, Tensor]
"""The tensors that a network is made of, by name, without their values."""


class NetworkMeasures(NamedTuple):
    """What is known of a network before it has weights."""

    levels: tuple[Level, ...]
    features: int
    outputs: int
    """Width of the logits, or of the features where there is no classifier."""
    operations: int
    parameters: int
    expected: Expected


def measured(architecture: Architecture, arguments: Mapping[str, Argument], size: int) -> NetworkMeasures:
    """What a network is and costs for images of this side, in pixels.

    Raises
    ------
    InvalidBackbone
        where it cannot be built with these arguments.
    UnsuitedSize
        where it cannot take images of this side.
    BackboneTooLarge
        for more parameters or multiply-adds than allowed.
    """
    module = _outline(architecture, arguments)
    parameters = sum(one.numel() for one in module.parameters())
    if parameters > MOST_PARAMETERS:
        raise BackboneTooLarge(f"{architecture.name} has {parameters} parameters; {MOST_PARAMETERS} are allowed")
    expected = dict(module.state_dict())
    places = architecture.places(module)
    taps = Taps(module, places, architecture.classifier(module))
    operations = Operations()
    try:
        with torch.no_grad(), DefinedAttention(), operations:
            seen = taps.look(torch.empty(1, 3, size, size, device="meta"))
    except InvalidBackbone:
        raise
    except Exception as error:  # whatever an architecture raises; there are no common types
        text = str(error).partition("\n")[0] or type(error).__name__
        raise UnsuitedSize(f"{architecture.name} cannot take images of {size} x {size} pixels: {text}") from error
    if operations.count > MOST_OPERATIONS:
        raise BackboneTooLarge(
            f"{architecture.name} takes {operations.count} multiply-adds for an image of {size} x {size} pixels; "
            f"{MOST_OPERATIONS} are allowed"
        )
    levels = tuple(
        Level(
            name=place.name,
            channels=maps.shape[1],
            reduction=max(1, round(size / maps.shape[2])),
            layout=place.layout,
            prefix=place.prefix,
        )
        for place, maps in zip(places, seen.levels, strict=True)
    )
    assert seen.logits is not None, "taps give what the whole network puts out"
    return NetworkMeasures(levels, seen.features.shape[1], seen.logits.shape[1], operations.count, parameters, expected)


def _outline(architecture: Architecture, arguments: Mapping[str, Argument]) -> nn.Module:
    try:
        with torch.device("meta"):
            return architecture.build(arguments).eval()
    except Exception as error:  # whatever an architecture raises; there are no common types
        text = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidBackbone(f"{architecture.name} cannot be built with {dict(arguments)}: {text}") from error
