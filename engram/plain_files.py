"""A conventional network as safetensors bytes, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from engram.elastic import ElasticNorm
from engram.errors import DamagedSnapshot
from engram.layout import Layout
from engram.plain import Head, PlainNetwork, build_blocks
from engram.tensors import pack, unpack


def dump_plain(network: PlainNetwork) -> tuple[bytes, ...]:
    """The shared blocks with the owners of their units, which change with every task; then one head for each task,
    which never changes again."""
    tensors = {f"blocks.{name}": value for name, value in network.blocks.state_dict().items()}
    tensors |= {f"owners.{layer}": owner for layer, owner in network.owners.items()}
    heads = (
        pack("head", {"task": head.task, "classes": list(head.classes)}, head.state_dict()) for head in network.stack
    )
    return pack("plain", {"units": network.units}, tensors), *heads


def load_plain(layout: Layout, pieces: Sequence[bytes]) -> PlainNetwork:
    """The inverse of `dump_plain`.

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
    return PlainNetwork(layout, units, blocks, owners, heads)


def _features(layout: Layout, units: dict[str, int]) -> int:
    return units[layout.features.layer] * layout.features.per_unit


def _load_head(data: bytes, features: int) -> Head:
    about, tensors = unpack("head", data)
    with torch.device("meta"):
        head = Head(str(about["task"]), cast(list[str], about["classes"]), features)
    head.load_state_dict(tensors, assign=True)
    return head
