"""Engrams, and the network that computes a stack of them in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from engram.nn.blocks import AddBlock, Block, build_block, cut_block
from engram.nn.layout import IMAGE, Layout, Node

Joined = Mapping[str, Tensor]
"""For each node that is read: its values of all owners so far, side by side along dimension 1."""


def pixels(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> float32 in [0, 1]."""
    return images.to(torch.float32) / 255.0


class Engram(nn.Module):
    """The part of a network that one task owns: its blocks, one for each node of the layout, and its head.

    Parameters
    ----------
    task, classes
        The task's name and its labels, in the order of the head's outputs.
    earlier
        Units of all earlier owners in each layer.
    units
        Units of this owner in each layer.
    """

    def __init__(
        self, layout: Layout, task: str, classes: Sequence[str], earlier: Mapping[str, int], units: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.layout = layout
        self.task = task
        self.classes = tuple(classes)
        self.earlier = dict(earlier)
        self.units = dict(units)
        self.content_hash: str | None = None
        self.blocks = nn.ModuleDict(
            {
                node.name: build_block(node, layout.incoming(node, self.reach) if node.mixing else 0, units[node.layer])
                for node in layout.nodes
            }
        )
        self.head = nn.Linear(self.reach[layout.features.layer] * layout.features.per_unit, len(self.classes))
        self.common: nn.Linear | None = None
        """Reads the features of the commons; what it gives is added to the head's logits."""

    @property
    def reach(self) -> dict[str, int]:
        """Units in each layer that this engram reads: all earlier ones and its own."""
        return {layer: self.earlier[layer] + self.units[layer] for layer in self.layout.layers}

    def block(self, node: Node) -> Block:
        return cast(Block, self.blocks[node.name])

    def forward(self, images: Tensor, joined: Joined, watch: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Compute this owner's units from the prefix and append them to it.

        Parameters
        ----------
        images
            (B, C, H, W) float32 in [0, 1].
        joined
            What the earlier owners left; empty for the first.
        watch
            If given, receives this owner's own output of every node.
        """
        own: dict[str, Tensor] = {} if watch is None else watch
        longer: dict[str, Tensor] = {IMAGE: images}
        read = self.layout.read()
        for node in self.layout.nodes:
            block = self.block(node)
            if node.mixing:
                own[node.name] = block(longer[node.sources[0]])  # (B, own units, ...)
            elif isinstance(block, AddBlock):
                own[node.name] = block(own[node.sources[0]], own[node.sources[1]])  # (B, own units, H, W)
            else:
                own[node.name] = block(own[node.sources[0]])  # (B, own units, ...)
            if node.name in read:
                before = joined.get(node.name)
                after = own[node.name] if before is None else torch.cat([before, own[node.name]], 1)
                longer[node.name] = after  # (B, units of owners <= this one, ...)
        del longer[IMAGE]
        return longer

    def logits(self, joined: Joined) -> Tensor:
        """(B, classes) from the prefix that ends with this engram."""
        return cast(Tensor, self.head(joined[self.layout.features.name]))

    def freeze(self) -> Engram:
        """Make this engram immutable: in eval mode for good, and no parameter of any optimiser."""
        self.eval()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return self

    @torch.no_grad()
    def narrowed(self, keep: Mapping[str, Tensor]) -> Engram:
        """A new engram with only the units `keep` names, as int64 indices into this engram's own units per layer.

        The weights from earlier owners stay as they are; dropped units leave no trace in any tensor.
        """
        narrow = Engram(
            self.layout,
            self.task,
            self.classes,
            self.earlier,
            {layer: len(keep[layer]) for layer in self.layout.layers},
        )
        for node in self.layout.nodes:
            if node.mixing:
                columns = self._columns(node, keep)
                narrow.blocks[node.name] = cut_block(node, self.block(node), keep[node.layer], columns)
        features = self._read_columns(self.layout.features, keep)
        narrow.head.weight.copy_(self.head.weight[:, features])
        narrow.head.bias.copy_(self.head.bias)
        return narrow.train(self.training)

    def _columns(self, node: Node, keep: Mapping[str, Tensor]) -> Tensor:
        (source,) = node.sources
        if source == IMAGE:
            return torch.arange(self.layout.incoming(node, self.reach))
        return self._read_columns(self.layout.node(source), keep)

    def _read_columns(self, origin: Node, keep: Mapping[str, Tensor]) -> Tensor:
        """Indices into what is read of `origin`: every value of earlier owners, and those of the kept own units."""
        earlier = self.earlier[origin.layer]
        chosen = torch.cat([torch.arange(earlier), earlier + keep[origin.layer]])  # (units,)
        within = torch.arange(origin.per_unit)
        return (chosen[:, None] * origin.per_unit + within).flatten()  # (units x per_unit,)


class Network(nn.Module):
    """A stack of engrams, each reading those before it; appending is the only change there is."""

    def __init__(self, layout: Layout, engrams: Sequence[Engram] = ()) -> None:
        super().__init__()
        self.layout = layout
        self.engrams = nn.ModuleList(engrams)

    @property
    def stack(self) -> tuple[Engram, ...]:
        return tuple(cast(Engram, engram) for engram in self.engrams)

    @property
    def owned(self) -> dict[str, int]:
        """Units of all owners together, in each layer."""
        return {layer: sum(engram.units[layer] for engram in self.stack) for layer in self.layout.layers}

    def appended(self, engram: Engram) -> Network:
        """A new network that shares this one's engrams and ends with another."""
        assert engram.earlier == self.owned, "an engram fits only on the stack that it was learned on"
        return Network(self.layout, [*self.stack, engram])

    def prefix(self, images: Tensor) -> Joined:
        """Everything the next engram may read, for (B, C, H, W) float32 images."""
        joined: Joined = {}
        for engram in self.stack:
            joined = engram(images, joined)
        return joined

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """One pass: for every owner its prefix features (B, F_owner) and its head's logits (B, classes)."""
        joined: Joined = {}
        outputs = []
        for engram in self.stack:
            joined = engram(images, joined)
            outputs.append((joined[self.layout.features.name], engram.logits(joined)))
        return outputs
