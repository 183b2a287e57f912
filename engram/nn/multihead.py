"""Multi-head networks: blocks that all tasks share, one head per task, and an owner of every unit.

Methods freeze parts of such a network, where `engram.nn.network` grows by blocks instead.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Self, cast

import torch
from torch import Tensor, nn

from engram.config.rnf import InitialWeights
from engram.nn.blocks import ConvBlock, DenseBlock, build_block
from engram.nn.capacity import LayerCapacity, TaskInfo, check_weights
from engram.nn.elastic import HEAD, Blocked, ElasticNorm, spread, weight_of
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.network import Engram

Owners = Mapping[str, Tensor]
"""Who owns each unit: for each layer (units,) int64; 0 is free, t the t-th task, counted from 1."""

Kept = Mapping[str, Tensor]
"""Some units: for each layer (units,) bool."""


class Head(nn.Linear):
    """The head of one task: (B, all features) -> (B, classes)."""

    def __init__(self, task: str, classes: Sequence[str], features: int) -> None:
        super().__init__(features, len(classes))
        self.task = task
        self.classes = tuple(classes)


class MultiHeadNetwork(nn.Module):
    """A network of shared blocks as wide as the whole budget, with one head for each task and an owner for each unit.

    A network is never changed: learning works on a `candidate`, from which `accepted` makes the next network.

    Parameters
    ----------
    units
        Units of each layer.
    """

    def __init__(
        self, layout: Layout, units: Mapping[str, int], blocks: nn.ModuleDict, owners: Owners, heads: Sequence[Head]
    ) -> None:
        super().__init__()
        self.layout = layout
        self.units = dict(units)
        self.blocks = blocks
        self.owners = {layer: owners[layer].clone() for layer in layout.layers}
        self.heads = nn.ModuleList(heads)
        self.requires_grad_(False).eval()
        # In a tuple, so that torch does not count the shared blocks once for each task.
        self._engrams = tuple(engram_of(layout, units, blocks, head).eval() for head in heads)

    @classmethod
    def create(
        cls, layout: Layout, units: Mapping[str, int], seed: int, initial_weights: InitialWeights = "he"
    ) -> Self:
        """A network of random weights in which every unit is free."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            blocks = build_blocks(layout, units)
            if initial_weights == "uniform":
                for module in blocks.modules():
                    if isinstance(module, nn.Linear | nn.Conv2d):
                        module.reset_parameters()
        owners = {layer: torch.zeros(units[layer], dtype=torch.int64) for layer in layout.layers}
        return cls(layout, units, blocks, owners, ())

    @property
    def stack(self) -> tuple[Head, ...]:
        """The heads, oldest task first."""
        return tuple(cast(Head, head) for head in self.heads)

    @property
    def device(self) -> torch.device:
        return next(self.blocks.parameters()).device

    @property
    def features(self) -> int:
        """How many values a head reads."""
        origin = self.layout.features
        return self.units[origin.layer] * origin.per_unit

    def engram(self, number: int) -> Engram:
        """One task (from 0) as an engram on an empty stack; it shares every weight with this network."""
        return self._engrams[number]

    def candidate(self, task: str, classes: Sequence[str], seed: int) -> Engram:
        """A copy of the blocks with a head of its own, on which a new task is learned."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(task, classes, self.features)
        blocks = copy.deepcopy(self.blocks).requires_grad_(True)
        return engram_of(self.layout, self.units, blocks, head.to(self.device))

    def accepted(self, candidate: Engram, owners: Owners) -> MultiHeadNetwork:
        """The network after a task: blocks and newest head from a copy of the candidate, the older heads shared.

        A copy: whoever still holds the optimiser holds parameters that are no longer the model's.
        """
        learned = copy.deepcopy(candidate)
        learned.zero_grad(set_to_none=True)
        head = cast(Head, learned.head)
        return MultiHeadNetwork(self.layout, self.units, learned.blocks, owners, (*self.stack, head))

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """One pass: the shared features (B, F), and each task's logits (B, classes)."""
        return features_and_logits(self._engrams[-1], images, self.stack)

    def columns(self, number: int) -> Tensor:
        """Indices of the features that belong to a task (from 0) or to one before it: int64."""
        origin = self.layout.features
        owner = self.owners[origin.layer].repeat_interleave(origin.per_unit)  # (F,)
        return ((owner > 0) & (owner <= number + 1)).nonzero().flatten()

    def tasks(self) -> tuple[TaskInfo, ...]:
        """The tasks, with the units that each was the first to need."""
        return tuple(
            TaskInfo(
                head.task,
                head.classes,
                {layer: int((self.owners[layer] == number).sum()) for layer in self.layout.layers},
            )
            for number, head in enumerate(self.stack, 1)
        )

    def capacity(self) -> list[LayerCapacity]:
        """The capacity of every layer, in the order of the layout."""
        tasks = self.tasks()
        return [
            LayerCapacity(
                layer,
                self.units[layer],
                {info.name: info.units[layer] for info in tasks},
                int((self.owners[layer] == 0).sum()),
            )
            for layer in self.layout.layers
        ]

    def rates(self, elasticity: float) -> dict[str, Tensor]:
        """The elasticity of each unit, when units that are owned have this one and free units move freely."""
        return {
            layer: torch.where(owner > 0, torch.tensor(elasticity), torch.tensor(1.0))
            for layer, owner in self.owners.items()
        }


def build_blocks(layout: Layout, units: Mapping[str, int]) -> nn.ModuleDict:
    """Blocks of random weights, so wide, whose normalisations are elastic; raises InvalidDefinition."""
    check_weights(layout, units)
    blocks = nn.ModuleDict()
    for node in layout.nodes:
        block = build_block(node, layout.incoming(node, units) if node.mixing else 0, units[node.layer])
        if isinstance(block, ConvBlock):
            block.norm = ElasticNorm(units[node.layer])
        blocks[node.name] = block
    return blocks


def engram_of(layout: Layout, units: Mapping[str, int], blocks: nn.ModuleDict, head: Head) -> Engram:
    """An engram on an empty stack that computes with these very modules."""
    with torch.device("meta"):  # no memory and no random draw for modules that are replaced at once
        engram = Engram(layout, head.task, head.classes, dict.fromkeys(layout.layers, 0), units)
    engram.blocks, engram.head = blocks, head
    return engram


def features_and_logits(engram: Engram, images: Tensor, heads: Sequence[nn.Module]) -> tuple[Tensor, list[Tensor]]:
    """The features (B, F) of an engram on an empty stack, and the logits (B, classes) of each head, in one pass."""
    features = engram(images, {})[engram.layout.features.name]  # (B, F)
    return features, [head(features) for head in heads]


def claimed(owners: Owners, kept: Kept, task: int) -> dict[str, Tensor]:
    """Owners after a task (counted from 1) has claimed those of the kept units that were free."""
    return {layer: torch.where((owner == 0) & kept[layer], task, owner) for layer, owner in owners.items()}


def read_by(layout: Layout, node: Node, units: Mapping[str, Tensor]) -> Tensor | None:
    """One value per unit, repeated for every value of it that a mixing node reads; None where that reads the image."""
    (source,) = node.sources
    return None if source == IMAGE else values_of(layout.node(source), units)


def values_of(origin: Node, units: Mapping[str, Tensor]) -> Tensor:
    """One value per unit (units,), repeated for every value that a node puts out."""
    return units[origin.layer].repeat_interleave(origin.per_unit)


def blocked_by(layout: Layout, owners: Owners, *, head: bool = False) -> Blocked:
    """The weights by which a later-owned or free unit could act on an earlier-owned one.

    Parameters
    ----------
    head
        Whether free units may not act on the newest head either: it belongs to a task that has its units already.
    """
    blocked = {HEAD: (values_of(layout.features, owners) == 0)[None]} if head else {}  # (1, F)
    for node in layout.nodes:
        if node.mixing:
            reader, read = owners[node.layer], read_by(layout, node, owners)
            if read is None:
                blocked[node.name] = torch.zeros(len(reader), 1, dtype=torch.bool)  # the image is everybody's
            else:
                foreign = (read == 0)[None, :] | (read[None, :] > reader[:, None])  # (own units, values read)
                blocked[node.name] = (reader > 0)[:, None] & foreign
    return blocked


@torch.no_grad()
def resist(engram: Engram, owners: Owners) -> None:
    """Zero, in place, every weight from a later-owned or free unit to an earlier-owned one, and from free units to
    the head. As long as they stay zero, and owned units stay as they are, nothing can change what the head answers."""
    for name, blocked in blocked_by(engram.layout, owners, head=True).items():
        weight = engram.head.weight if name == HEAD else weight_of(engram.blocks[name])
        weight.masked_fill_(spread(blocked, weight), 0.0)


@torch.no_grad()
def silenced(engram: Engram, kept: Kept) -> Engram:
    """A copy in which nothing reads the units that are not kept."""
    copied = copy.deepcopy(engram)
    for node in copied.layout.nodes:
        block = copied.block(node)
        if isinstance(block, DenseBlock | ConvBlock) and (read := read_by(copied.layout, node, kept)) is not None:
            weight = weight_of(block)
            weight.masked_fill_(spread(~read[None, :], weight), 0.0)
    dropped = ~values_of(copied.layout.features, kept)  # (F,)
    copied.head.weight.masked_fill_(dropped.to(copied.head.weight.device), 0.0)
    return copied


@torch.no_grad()
def renewed(engram: Engram, units: Kept, seed: int) -> None:
    """Draw anew, in place, what these units compute: incoming weights, biases and normalisation as on the first day."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_blocks(engram.layout, engram.units)
    for node in engram.layout.nodes:
        if node.mixing:
            chosen = units[node.layer]
            drawn, state = fresh[node.name].state_dict(), engram.block(node).state_dict()
            for name, value in state.items():
                if value.ndim:  # a normalisation counts its batches, for all units together
                    value[chosen.to(value.device)] = drawn[name][chosen].to(value.device)
