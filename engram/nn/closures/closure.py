"""Closures of engrams: the owners and nodes that an answer needs, and their multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from engram.nn.blocks import Block
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.reads import Read


class BlockOwner(Protocol):
    """What closures have to know of an engram."""

    layout: Layout
    task: str
    units: dict[str, int]
    earlier: dict[str, int]
    head: nn.Linear

    @property
    def reads(self) -> tuple[Read, ...] | None: ...

    @property
    def reach(self) -> dict[str, int]: ...

    def block(self, node: Node) -> Block: ...


@dataclass(frozen=True)
class Closure:
    """All that has to be computed for one task's answer."""

    task: str
    nodes: Mapping[str, tuple[str, ...]]
    """For each owner, in the order of learning and the task itself last, the names of its nodes that are computed."""
    alone: int
    """Multiply-adds an image of the task's own blocks and head if they read nothing of others."""
    own: int
    """The same, with what they read."""
    total: int
    """Multiply-adds an image of all owners."""

    @property
    def owners(self) -> tuple[str, ...]:
        """Names of all owners, the task itself last."""
        return tuple(self.nodes)


def reads_of(owner: BlockOwner) -> Sequence[Read]:
    """What an owner reads, which has to be said."""
    assert owner.reads is not None, f"the engram of {owner.task} reads everything before it and has no closure"
    return owner.reads


def closure_of(owner: BlockOwner, owners: Mapping[str, BlockOwner]) -> Closure:
    """The closure of an engram that reads of `owners`, which are in the order of learning."""
    nodes = needed(owner.layout, reads_of(owner), owners)
    total = sum(multiply_adds(owners[name], node, owners[name].reach) for name, some in nodes.items() for node in some)
    own, alone = (
        sum(multiply_adds(owner, node, reach) for node in owner.layout.nodes)
        + reach[owner.layout.features.layer] * owner.layout.features.per_unit * owner.head.out_features
        for reach in (owner.reach, owner.units)
    )
    names = {name: tuple(node.name for node in some) for name, some in nodes.items()}
    names[owner.task] = tuple(node.name for node in owner.layout.nodes)
    return Closure(owner.task, names, alone, own, own + total)


def needed(layout: Layout, reads: Sequence[Read], owners: Mapping[str, BlockOwner]) -> dict[str, list[Node]]:
    """Which nodes of which owners have to be computed for what is read, each in the order of computation."""
    found: dict[str, set[str]] = {}
    waiting = [(read.owner, name) for read in reads for name in layout.read() if read.count(layout.node(name).layer)]
    while waiting:
        owner, name = waiting.pop()
        assert owner in owners, f"what is read of {owner} has to be there"
        if name == IMAGE or name in found.setdefault(owner, set()):
            continue
        found[owner].add(name)
        node = layout.node(name)
        waiting += [(owner, source) for source in node.sources]
        if node.mixing:
            waiting += [(read.owner, source) for read, source in _read_by(owners[owner], node)]
    ordered = {
        owner: [node for node in layout.nodes if node.name in found[owner]] for owner in owners if owner in found
    }
    assert len(ordered) == len(found), f"an owner is missing: {sorted(found.keys() - ordered.keys())}"
    return ordered


def _read_by(owner: BlockOwner, node: Node) -> list[tuple[Read, str]]:
    (source,) = node.sources
    if source == IMAGE:
        return []
    layer = owner.layout.node(source).layer
    return [(read, source) for read in reads_of(owner) if read.count(layer)]


def multiply_adds(owner: BlockOwner, node: Node, reach: Mapping[str, int]) -> int:
    """Multiply-adds an image of one node of an owner that reads so many units in each layer.

    Those of nodes without weights do not count.
    """
    if not node.mixing:
        return 0
    height, width = node.size or (1, 1)
    incoming = owner.layout.incoming(node, reach)
    return incoming * owner.units[node.layer] * node.kernel**2 * height * width
