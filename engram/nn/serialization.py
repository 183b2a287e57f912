"""Engrams, the commons and multi-head networks as safetensors bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from engram.checkpointing.pieces import Piece
from engram.checkpointing.tensors import content_hash, pack, unpack
from engram.config.commons import PretrainedDefinition, ResolvedCommons, regressions
from engram.config.definition import Definition
from engram.errors import DamagedSnapshot
from engram.nn.commons import Commons
from engram.nn.commons.float_commons import FloatCommons
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.commons.joined_commons import JoinedCommons
from engram.nn.commons.pretrained_commons import PretrainedCommons
from engram.nn.commons.readings import Readings
from engram.nn.commons.recipes import pretrained
from engram.nn.elastic import ElasticNorm
from engram.nn.layout import Layout
from engram.nn.multihead import Head, MultiHeadNetwork, Owners, build_blocks
from engram.nn.network import Engram
from engram.nn.reads import Read, read_units


def load_engrams(layout: Layout, engrams: Sequence[bytes], known: Sequence[Engram] = ()) -> list[Engram]:
    """Engrams, each learned on those before it; raises DamagedSnapshot, UnsupportedFormat."""
    by_hash = {engram.content_hash: engram for engram in known}
    stack = [by_hash.get(content_hash(data)) or load_engram(layout, data) for data in engrams]
    _check_stack(layout, stack)
    return stack


def dump_engram(engram: Engram) -> bytes:
    """One engram as bytes."""
    about: dict[str, object] = {
        "task": engram.task,
        "classes": list(engram.classes),
        "earlier": engram.earlier,
        "units": engram.units,
    }
    if engram.reads is not None:
        about["reads"] = [
            {"owner": read.owner, "units": {layer: units.tolist() for layer, units in read.units.items()}}
            for read in engram.reads
        ]
    data = pack("engram", about, engram.state_dict())
    engram.content_hash = content_hash(data)
    return data


def load_engram(layout: Layout, data: bytes) -> Engram:
    """One frozen engram from its bytes.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    about, tensors = unpack("engram", data)
    try:
        task, classes = str(about["task"]), cast(list[str], about["classes"])
        earlier, units = cast(dict[str, int], about["earlier"]), cast(dict[str, int], about["units"])
        reads = _reads(layout, earlier, about["reads"]) if "reads" in about else None
        with torch.device("meta"):  # no memory and no random draw for weights that are replaced at once
            engram = Engram(layout, task, classes, earlier, units, reads)
            if "common.weight" in tensors:
                engram.common = nn.Linear(tensors["common.weight"].shape[1], len(classes))
        engram.load_state_dict(tensors, assign=True)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise DamagedSnapshot(f"this engram does not fit the model's layout: {error}") from error
    engram.content_hash = content_hash(data)
    return engram.freeze()


def _reads(layout: Layout, earlier: dict[str, int], stored: object) -> tuple[Read, ...]:
    """What an engram reads; raises KeyError, TypeError or ValueError for what is no such thing."""
    reads = []
    for one in cast(list[dict[str, object]], stored):
        units = {}
        for layer, found in cast(dict[str, list[int]], one["units"]).items():
            if layer not in layout.layers or not found or any(type(unit) is not int for unit in found):
                raise ValueError(f"it does not say which units it reads in {layer}")
            if found[0] < 0 or any(after <= before for before, after in pairwise(found)):
                raise ValueError(f"the units that it reads in {layer} are not in order")
            units[layer] = torch.tensor(found, dtype=torch.int64)
        if not isinstance(one["owner"], str) or not units:
            raise ValueError("it does not say of whom it reads what")
        reads.append(Read(one["owner"], units))
    if len({read.owner for read in reads}) < len(reads) or read_units(layout.layers, reads) != earlier:
        raise ValueError("what it reads is not what its weights are for")
    return tuple(reads)


def _check_stack(layout: Layout, stack: Sequence[Engram]) -> None:
    owned = dict.fromkeys(layout.layers, 0)
    owners: dict[str, Engram] = {}
    for engram in stack:
        if engram.reads is None and engram.earlier != owned:
            raise DamagedSnapshot(f"the engram of task {engram.task!r} was learned on another stack")
        for read in engram.reads or ():
            owner = owners.get(read.owner)
            if owner is None or any(int(units[-1]) >= owner.units[layer] for layer, units in read.units.items()):
                raise DamagedSnapshot(f"the engram of task {engram.task!r} reads units that {read.owner!r} has not")
        owners[engram.task] = engram
        owned = {layer: units + engram.units[layer] for layer, units in owned.items()}


def dump_commons(commons: Commons) -> bytes:
    """The commons as bytes, without the weights of networks that users brought."""
    if isinstance(commons, JoinedCommons):
        tensors = {f"{n}.{name}": one for n, part in enumerate(commons.each()) for name, one in _state(part).items()}
        return pack("commons", {"parts": [_about(part) for part in commons.each()]}, tensors)
    if isinstance(commons, GridCommons | PretrainedCommons):
        return pack("commons", _about(commons), commons.state_dict())
    assert isinstance(commons, FloatCommons), "there are commons on a grid, and those that are not"
    about = {"filters": commons.kind, "features": commons.features, "patch": commons.patch}
    return pack("commons", about, commons.state_dict())


def _state(commons: Commons) -> Mapping[str, Tensor]:
    return cast(Mapping[str, Tensor], commons.state_dict())


def _about(commons: Commons) -> dict[str, object]:
    """What a header says of commons on a grid."""
    if isinstance(commons, PretrainedCommons):
        return {"readings": commons.readings.to_row()}
    assert isinstance(commons, GridCommons), "there are banks of filters, and networks that users brought"
    banks = [bank.about.model_dump(mode="json") for bank in commons.each()]
    return {"banks": banks, "dictionary": commons.dictionary}


def load_commons(definition: Definition, data: bytes, weights: Sequence[bytes | Piece] = ()) -> Commons:
    """The commons; raises DamagedSnapshot, UnsupportedFormat.

    Parameters
    ----------
    weights
        Of each network among them, read when it is first looked through.
    """
    about, tensors = unpack("commons", data)
    try:
        if definition.pretrained or isinstance(definition.commons, tuple):
            return _load_parts(definition, about, tensors, weights)
        commons = _blank_commons(definition, about)
        commons.load_state_dict(tensors if "banks" in about else {"offsets": _no_offsets(commons), **tensors})
    except (RuntimeError, ValueError, TypeError, KeyError, StopIteration) as error:
        raise DamagedSnapshot(f"the commons do not fit the model's definition: {error}") from error
    return commons


def _load_parts(
    definition: Definition,
    about: Mapping[str, object],
    tensors: Mapping[str, Tensor],
    weights: Sequence[bytes | Piece],
) -> Commons:
    """Networks that users brought and banks of filters, side by side; raises as `_blank_commons`, or KeyError."""
    several, given = isinstance(definition.commons, tuple), iter(weights)
    rows = cast(list[Mapping[str, object]], about["parts"]) if several else [about]
    parts: list[Commons] = []
    for number, (wanted, row) in enumerate(zip(definition.parts, rows, strict=True)):
        prefix = f"{number}." if several else ""
        if isinstance(wanted, PretrainedDefinition):
            part: Commons = pretrained(definition, wanted, Readings.from_row(row["readings"]), next(given))
        else:
            part = _blank_grid(definition, row)
        own = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
        part.load_state_dict(own)
        parts.append(part)
    return JoinedCommons(parts, regressions(definition.parts)) if several else parts[0]


def _blank_grid(definition: Definition, about: Mapping[str, object]) -> GridCommons:
    # What a definition leaves open may come to mean something else: what is stored says what was made of it.
    banks = [ResolvedCommons.model_validate(bank) for bank in cast(list[object], about.get("banks", ()))]
    if not banks:
        raise DamagedSnapshot("the commons are not those of the model's definition")
    return GridCommons(definition.input, banks, definition.seed, cast(str | None, about.get("dictionary")))


def _blank_commons(definition: Definition, about: Mapping[str, object]) -> Commons:
    """Commons as they were stored, still without their filters; raises DamagedSnapshot, ValueError, TypeError."""
    if definition.recipe > 2:
        return _blank_grid(definition, about)
    kind, patch, wanted = about.get("filters", "smooth"), about.get("patch"), definition.filters
    if wanted.kind is None and kind in ("smooth", "learned") and isinstance(patch, int):
        # The kind that a definition means when it names none has changed since the first models were made.
        wanted = wanted.model_copy(update={"kind": kind, "patch": patch})
        definition = definition.model_copy(update={"commons": wanted})
    commons = FloatCommons(definition)
    if (kind, about.get("features"), patch) != (commons.kind, commons.features, commons.patch):
        raise DamagedSnapshot("the commons are not those of the model's definition")
    return commons


def _no_offsets(commons: Commons) -> Tensor:
    assert isinstance(commons, FloatCommons), "commons on a grid were never without offsets"
    return torch.zeros(len(commons.filters.weight))


def dump_multihead(network: MultiHeadNetwork) -> tuple[bytes, ...]:
    """The shared blocks with the owners of their units, then the head of each task.

    The first piece changes with every task, a head never again.
    """
    tensors = {f"blocks.{name}": value for name, value in network.blocks.state_dict().items()}
    tensors |= {f"owners.{layer}": owner for layer, owner in network.owners.items()}
    heads = (
        pack("head", {"task": head.task, "classes": list(head.classes)}, head.state_dict()) for head in network.stack
    )
    return pack("plain", {"units": network.units}, tensors), *heads


def load_multihead(layout: Layout, pieces: Sequence[bytes]) -> MultiHeadNetwork:
    """The inverse of `dump_multihead`.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
    """
    if not pieces:
        raise DamagedSnapshot("a shared network has at least its blocks")
    about, tensors = unpack("plain", pieces[0])
    try:
        units = {layer: int(cast(dict[str, int], about["units"])[layer]) for layer in layout.layers}
        with torch.device("meta"):  # no memory and no random draw for weights that are replaced at once
            blocks = build_blocks(layout, units)
        for module in blocks.modules():
            if isinstance(module, ElasticNorm):  # not stored: how learning treats a unit follows from its owner
                module.elasticity = torch.ones(module.num_features)
        state = {name.removeprefix("blocks."): t for name, t in tensors.items() if name.startswith("blocks.")}
        blocks.load_state_dict(state, assign=True)
        owners = {layer: tensors[f"owners.{layer}"] for layer in layout.layers}
        if any(owner.shape != (units[layer],) for layer, owner in owners.items()):
            raise DamagedSnapshot("the owners do not fit the units of the network")
        heads = [_load_head(piece, _features(layout, units)) for piece in pieces[1:]]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DamagedSnapshot(f"this network does not fit the model's layout: {error}") from error
    if any(int(owner.max()) > len(heads) or int(owner.min()) < 0 for owner in owners.values()):
        raise DamagedSnapshot("units belong to tasks that the network does not have")
    return MultiHeadNetwork(layout, units, blocks, owners, heads)


def _features(layout: Layout, units: dict[str, int]) -> int:
    return units[layout.features.layer] * layout.features.per_unit


def _load_head(data: bytes, features: int) -> Head:
    about, tensors = unpack("head", data)
    with torch.device("meta"):
        head = Head(str(about["task"]), cast(list[str], about["classes"]), features)
    head.load_state_dict(tensors, assign=True)
    return head


def dump_owners(owners: Owners) -> bytes:
    """The owners of a network's units, apart from its weights."""
    return pack("owners", {}, dict(owners))


def load_owners(network: MultiHeadNetwork, data: bytes) -> dict[str, Tensor]:
    """Owners of the units of a network of this size; raises DamagedSnapshot, UnsupportedFormat."""
    _, owners = unpack("owners", data)
    if {layer: owner.shape for layer, owner in owners.items()} != {
        layer: owner.shape for layer, owner in network.owners.items()
    }:
        raise DamagedSnapshot("the owners are of other units than the model's")
    return owners


def dump_blocks(network: MultiHeadNetwork) -> bytes:
    """The shared blocks alone, without owners and heads."""
    return pack("shared network", {}, network.blocks.state_dict())


def load_blocks(network: MultiHeadNetwork, owners: Owners, data: bytes) -> MultiHeadNetwork:
    """A network without heads; raises DamagedSnapshot, UnsupportedFormat.

    Parameters
    ----------
    network
        A fresh one of the same definition, whose blocks are taken over and overwritten.
    """
    _, tensors = unpack("shared network", data)
    try:
        network.blocks.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedSnapshot(f"the shared network does not fit the model's definition: {error}") from error
    return MultiHeadNetwork(network.layout, network.units, network.blocks, owners, ())
