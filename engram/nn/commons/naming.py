"""Names of networks in a definition, and the networks that they mean when a model is created."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    return Definition.model_validate({**dict(definition), "commons": commons}), pieces


def described(part: PretrainedDefinition, description: BackboneDescription) -> BackboneDescription:
    """A network at the size that a definition gives it; raises UnsuitedSize."""
    return description if part.size is None else at_size(description, part.size)


def named(given: Mapping[str, Any], describe: Callable[[str], BackboneDescription]) -> dict[str, Any]:
    """A definition as JSON in which every network that it names is described.

    Where it says nothing of its images, they are as the first network takes them, photographs cropped to a square.

    Parameters
    ----------
    describe
        Gives what is stored under a name; may raise.
    """
    commons = given.get("commons")
    several = isinstance(commons, list)
    found, settled = [], dict(given)
    for part in commons if isinstance(commons, list) else [commons]:
        if (
            not isinstance(part, Mapping)
            or part.get("kind") != "pretrained"
            or not isinstance(part.get("backbone"), str)
        ):
            found.append(part)
            continue
        source = described(PretrainedDefinition.model_validate({**part, "source": None}), describe(part["backbone"]))
        found.append({**part, "source": source.stored()})
        settled.setdefault("input", _input(source))
    settled["commons"] = found if several else found[0]
    return settled


def _input(source: BackboneDescription) -> dict[str, Any]:
    about = source.preprocessing
    shape = {"channels": 3, "height": about.size, "width": about.size, "fit": "crop", "crop": about.crop}
    return {**shape, "interpolation": about.interpolation}
