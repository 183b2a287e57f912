"""Inspection of a network that a user brings, before anything is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from engram.config.backbones import Argument, BackboneDescription, Preprocessing
from engram.errors import InvalidBackbone, MissingTensors, NotFinite, SurplusTensors, UnsuitedSize, WrongShapes
from engram.nn.pretrained.architecture import NUM_CLASSES, Architecture
from engram.nn.pretrained.architectures import allowed_arguments, architecture
from engram.nn.pretrained.measurement import Expected, NetworkMeasures, measured
from engram.nn.pretrained.network import assembled
from engram.nn.pretrained.weights import FLOATS, INTEGERS, Header, byte_count, fingerprint, read_header, read_tensors

_MOST_SHOWN = 4
_MOST_LICENCE = 200
_COUNTER = "num_batches_tracked"
"""Of batch norms; older files lack it, and nothing reads it once a network has learned."""


def inspect(
    weights: Path | bytes,
    name: str,
    *,
    config: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    licence: str | None = None,
) -> BackboneDescription:
    """The description of a network, if it can be used: `weights` is a safetensors file for the architecture `name`.

    `config` has those fields of `Preprocessing` in which the network differs from what the library has its own weights
    made for; `arguments` are those of `Architecture.arguments`. The number of classes is that of the classifier's
    tensors, where it is not said.

    Raises
    ------
    UnknownArchitecture, ArchitectureMissing, PickleRefused, DamagedWeights, MissingTensors, SurplusTensors, WrongShapes
    NotFinite, UnsuitedSize, BackboneTooLarge, InvalidBackbone
        each for what its name says.
    """
    header = read_header(weights)
    kind = architecture(name)
    given = allowed_arguments(kind, arguments or {})
    preprocessing = _preprocessing(kind, given, config or {})
    size = preprocessing.size
    settled = kind.for_size(given, size)
    found = measured(kind, settled, size)
    if NUM_CLASSES not in settled and (classes_found := _classes(kind, settled, header)) is not None:
        settled = allowed_arguments(kind, {**settled, NUM_CLASSES: classes_found})
        found = measured(kind, settled, size)
    _compare(found.expected, header)
    description = BackboneDescription(
        architecture=kind.name,
        arguments=settled,
        library=kind.library,
        weights=fingerprint(weights),
        bytes=byte_count(weights),
        parameters=found.parameters,
        operations=found.operations,
        preprocessing=preprocessing,
        levels=found.levels,
        features=found.features,
        outputs=_outputs(kind, settled, found),
        classes=_class_names(classes, _outputs(kind, settled, found)),
        licence=_licence(licence if licence is not None else header.metadata.get("license")),
    )
    _try(description, weights)
    return description


def at_size(description: BackboneDescription, size: int) -> BackboneDescription:
    """The same network for images of another side, in pixels; its weights are not read.

    Raises
    ------
    UnsuitedSize
        where it cannot take them.
    ArchitectureMissing, BackboneTooLarge, InvalidBackbone
        each for what its name says.
    """
    if size == description.preprocessing.size:
        return description
    kind = architecture(description.architecture)
    preprocessing = _preprocessing(kind, {}, {**description.preprocessing.model_dump(), "size": size})
    settled = kind.for_size(description.arguments, size)
    found = measured(kind, settled, size)
    before = measured(kind, description.arguments, description.preprocessing.size)
    if _shapes(found.expected) != _shapes(before.expected):
        raise UnsuitedSize(f"{kind.name} has other weights for images of {size} x {size} pixels")
    changed = {
        "arguments": settled,
        "preprocessing": preprocessing,
        "levels": found.levels,
        "operations": found.operations,
    }
    return description.model_copy(update=changed)


def _shapes(expected: Expected) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in expected.items()}


def _preprocessing(kind: Architecture, arguments: Mapping[str, Argument], config: Mapping[str, Any]) -> Preprocessing:
    own = kind.preprocessing(arguments)
    try:
        return Preprocessing.model_validate({**own.model_dump(), **config})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidBackbone(f"the preprocessing is not valid: {field}: {first['msg']}") from error


def _classifier(kind: Architecture, arguments: Mapping[str, Argument]) -> str:
    with torch.device("meta"):
        return kind.classifier(kind.build(arguments))


def _classes(kind: Architecture, arguments: Mapping[str, Argument], header: Header) -> int | None:
    """How many classes the file has a classifier for, where it has one."""
    if NUM_CLASSES not in kind.arguments:
        return None
    path = _classifier(kind, arguments)
    for name in (f"{path}.weight", f"{path}.bias"):
        tensor = header.tensors.get(name)
        if tensor is not None and tensor.shape:
            return tensor.shape[0]
    return None


def _outputs(kind: Architecture, arguments: Mapping[str, Argument], found: NetworkMeasures) -> int:
    path = _classifier(kind, arguments)
    has = any(name.startswith(f"{path}.") for name in found.expected)
    return found.outputs if has else 0


def _compare(expected: Expected, header: Header) -> None:
    """Raise what is wrong with the names, types and shapes of the file's tensors."""
    missing = [name for name in expected if name not in header.tensors and not name.endswith(_COUNTER)]
    surplus = [name for name in header.tensors if name not in expected]
    if missing:
        hint = f"; it has others instead: {_some(surplus)}" if surplus else ""
        raise MissingTensors(f"the file lacks tensors of the architecture: {_some(missing)}{hint}")
    if surplus:
        raise SurplusTensors(f"the file has tensors that the architecture lacks: {_some(surplus)}")
    for name, (kind, shape) in header.tensors.items():
        wanted = expected[name]
        if tuple(wanted.shape) != shape:
            raise WrongShapes(f"{name} has the shape {list(shape)}; the architecture's has {list(wanted.shape)}")
        if kind not in (FLOATS if wanted.is_floating_point() else INTEGERS):
            raise WrongShapes(f"{name} is of type {kind}, which is not taken for it")


def _some(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - _MOST_SHOWN} more" if len(known) > _MOST_SHOWN else ""
    return ", ".join(name[:100] for name in known[:_MOST_SHOWN]) + more


def _class_names(classes: Sequence[str] | None, outputs: int) -> tuple[str, ...] | None:
    if classes is None:
        return None
    if len(classes) != outputs:
        raise InvalidBackbone(f"the network has {outputs} outputs, but {len(classes)} class names are given")
    if len(set(classes)) != len(classes) or not all(classes):
        raise InvalidBackbone("a class name is empty or given twice")
    return tuple(classes)


def _licence(licence: str | None) -> str | None:
    if licence is not None and len(licence) > _MOST_LICENCE:
        raise InvalidBackbone(f"a licence is named in {_MOST_LICENCE} characters at most")
    return licence or None


def _try(description: BackboneDescription, weights: Path | bytes) -> None:
    """Raise NotFinite where what the network makes of a black image, or a grey one, is infinite or no number."""
    loaded = assembled(description, read_tensors(weights))
    size = description.preprocessing.size
    for grey in (0, 128):
        seen = loaded.look(torch.full((1, 3, size, size), grey, dtype=torch.uint8))
        for tensor in (*seen.levels, seen.features, *((seen.logits,) if seen.logits is not None else ())):
            if not bool(torch.isfinite(tensor).all()):
                raise NotFinite("what the network makes of an image of one colour is infinite or no number")
