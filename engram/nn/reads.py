"""What an engram reads of earlier owners: for each of them some of its units, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.layout import Layout, Node


@dataclass(frozen=True)
class Read:
    """The units of one earlier owner that an engram reads.

    In each layer they are read at every node whose values later nodes, or the head, read.
    """

    owner: str
    """The name of its task."""
    units: Mapping[str, Tensor]
    """For each layer that is read int64 indices into the owner's own units, rising; other layers are left out."""

    def count(self, layer: str) -> int:
        """How many units of a layer are read."""
        return len(self.units[layer]) if layer in self.units else 0


Reads = tuple[Read, ...]


def whole(owner: str, units: Mapping[str, int]) -> Read:
    """All units of an owner, given how many it has in each layer."""
    return Read(owner, {layer: torch.arange(count) for layer, count in units.items() if count})


def read_units(layers: Sequence[str], reads: Sequence[Read]) -> dict[str, int]:
    """How many units are read in each layer, of all owners together."""
    return {layer: sum(read.count(layer) for read in reads) for layer in layers}


def cut(reads: Sequence[Read], keep: Mapping[str, Tensor]) -> Reads:
    """Only some of what is read; owners of which nothing is left are left out.

    Parameters
    ----------
    keep
        For each layer rising indices into what is read of it, owner after owner in the order of `reads`.
    """
    start = dict.fromkeys(keep, 0)
    left = []
    for read in reads:
        units = {}
        for layer, found in read.units.items():
            end = start[layer] + len(found)
            inside = keep[layer][(keep[layer] >= start[layer]) & (keep[layer] < end)]
            if len(inside):
                units[layer] = found[inside - start[layer]]
            start[layer] = end
        if units:
            left.append(Read(read.owner, units))
    return tuple(left)


def belonging(reads: Sequence[Read], layer: str, owner: str) -> Tensor:
    """Which of the units that are read in a layer, owner after owner, are one owner's: (units read,) bool."""
    parts = [torch.full((read.count(layer),), read.owner == owner) for read in reads]
    return torch.cat([torch.zeros(0, dtype=torch.bool), *parts])


def columns(read: Read, node: Node) -> Tensor:
    """Indices of what is read of an owner's values at a node, along their dimension 1."""
    within = torch.arange(node.per_unit)
    return (read.units[node.layer][:, None] * node.per_unit + within).flatten()  # (units x per_unit,)


def gathered(layout: Layout, reads: Sequence[Read], values: Mapping[tuple[str, str], Tensor]) -> dict[str, Tensor]:
    """What is read at each node, side by side, of the values of owners' nodes, (B, own units, ...) each.

    Nodes at which nothing is read, or some of whose values are missing, are left out.
    """
    joined = {}
    for node in layout.nodes:
        some = [read for read in reads if read.count(node.layer)]
        if node.name in layout.read() and some and all((read.owner, node.name) in values for read in some):
            chosen = [(values[read.owner, node.name], columns(read, node)) for read in some]
            parts = [given.index_select(1, indices.to(given.device)) for given, indices in chosen]
            joined[node.name] = torch.cat(parts, 1)  # (B, values read, ...)
    return joined
