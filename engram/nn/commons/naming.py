"""Names of networks in a definition, and the networks that they mean when a model is created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from engram.checkpointing.pieces import Piece
from engram.config.backbones import BackboneDescription
from engram.config.commons import CommonsPart, PretrainedDefinition
from engram.config.definition import Definition
from engram.errors import InvalidDefinition
from engram.nn.pretrained.backbone import Backbone
from engram.nn.pretrained.inspection import at_size


def over_networks(definition: Definition, backbones: Mapping[str, Backbone]) -> tuple[Definition, list[Piece]]:
    """A definition that says what its networks are, and the weights of each; any other as it is.

    Raises
    ------
    InvalidDefinition
        for a network that is not among these, or is another one than the definition says.
    UnsuitedSize
        for a size that a network cannot take.
    """
    if not definition.pretrained:
        return definition, []
    parts: list[CommonsPart] = []
    pieces: list[Piece] = []
    for part in definition.parts:
        if not isinstance(part, PretrainedDefinition):
            parts.append(part)
            continue
        if part.backbone not in backbones:
            raise InvalidDefinition(f"no network is given under the name {part.backbone!r}")
        backbone = backbones[part.backbone]
        found = described(part, backbone.description)
        if part.source not in (None, found):
            raise InvalidDefinition(f"the network given as {part.backbone!r} is another one than the model's")
        parts.append(part.model_copy(update={"source": found}))
        pieces.append(Piece(backbone.description.weights, backbone.weights))
    commons: Any = tuple(parts) if isinstance(definition.commons, tuple) else parts[0]
    fields = {**dict(definition), "commons": commons}
    if "input" not in definition.model_fields_set:
        fields["input"] = _input(_first(parts))
    return Definition.model_validate(fields), pieces


def described(part: PretrainedDefinition, description: BackboneDescription) -> BackboneDescription:
    """A network at the size that a definition gives it; raises UnsuitedSize."""
    return description if part.size is None else at_size(description, part.size)


def _first(parts: Sequence[CommonsPart]) -> BackboneDescription:
    """The first network, or of those that one regression reads with it the one that sees the largest images."""
    number = next(number for number, part in enumerate(parts) if isinstance(part, PretrainedDefinition))
    beside = takewhile(lambda part: isinstance(part, PretrainedDefinition) and part.together, parts[number + 1 :])
    some = [part.source for part in (parts[number], *beside) if isinstance(part, PretrainedDefinition) and part.source]
    return max(some, key=lambda source: source.preprocessing.size)


def _input(source: BackboneDescription) -> dict[str, Any]:
    """Photographs, cropped to the square that a network was made for."""
    about = source.preprocessing
    shape = {"channels": 3, "height": about.size, "width": about.size, "fit": "crop", "crop": about.crop}
    return {**shape, "interpolation": about.interpolation}
