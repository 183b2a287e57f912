"""Frozen feature extractor, and the classifier that goes on learning from its maps."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.nn.blocks import AddBlock, Block
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.network import Engram

SUMMARY = 512
"""Most numbers in the summary of a map: densities over it cost the square."""


def map_nodes(layout: Layout) -> tuple[Node, ...]:
    """The nodes up to the last one with a height and a width, whose output is the feature map.

    Where no node has any, all of them: each unit is then a channel of one place.
    """
    spatial = [number for number, node in enumerate(layout.nodes) if node.size is not None]
    return layout.nodes[: spatial[-1] + 1] if spatial else layout.nodes


def map_shape(layout: Layout) -> tuple[int, int]:
    """Channels and places of a map."""
    last = map_nodes(layout)[-1]
    return layout.widths[last.layer], 1 if last.size is None else last.size[0] * last.size[1]


def whole(layout: Layout, task: str, classes: Sequence[str]) -> Engram:
    """A conventional network on a layout: one owner of all units that a task may try, freshly initialised."""
    return Engram(layout, task, classes, dict.fromkeys(layout.layers, 0), layout.widths)


def _run(nodes: Sequence[Node], blocks: nn.ModuleDict, outputs: dict[str, Tensor]) -> Tensor:
    """The output of the last node, given the outputs of those before the first."""
    for node in nodes:
        block = cast(Block, blocks[node.name])
        given = [outputs[source] for source in node.sources]
        outputs[node.name] = block(*given) if isinstance(block, AddBlock) else block(given[0])
    return outputs[nodes[-1].name]


class FeatureMaps(nn.Module):
    """The frozen backbone: (B, C, H, W) float32 in [0, 1] -> maps (B, channels, places), none of them negative."""

    def __init__(self, layout: Layout, blocks: nn.ModuleDict) -> None:
        super().__init__()
        self.layout = layout
        self.nodes = map_nodes(layout)
        self.blocks = blocks
        self.eval()
        for parameter in self.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None

    @classmethod
    def of(cls, engram: Engram) -> FeatureMaps:
        """The backbone of a trained network, as a copy: whoever holds an optimiser holds other parameters."""
        nodes = map_nodes(engram.layout)
        return cls(engram.layout, nn.ModuleDict({node.name: copy.deepcopy(engram.block(node)) for node in nodes}))

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and places of a map."""
        return map_shape(self.layout)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return _run(self.nodes, self.blocks, {IMAGE: images}).reshape(len(images), *self.shape)

    def summary(self, maps: Tensor) -> Tensor:
        """(B, F): means over quarters of the maps, or over all places where that would be too many numbers."""
        size = self.nodes[-1].size
        if size is None or min(size) < 2 or 4 * maps.shape[1] > SUMMARY:
            return maps.mean(2)
        return F.adaptive_avg_pool2d(maps.reshape(*maps.shape[:2], *size), 2).flatten(1)

    def dump(self) -> bytes:
        """The backbone as bytes, which never change."""
        return pack("backbone", {"shape": list(self.shape)}, self.state_dict())

    @classmethod
    def load(cls, layout: Layout, data: bytes) -> FeatureMaps:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("backbone", data)
        with torch.device("meta"):  # no memory and no random draw for weights that are replaced at once
            maps = cls.of(whole(layout, "", ("",)))
        try:
            maps.load_state_dict(tensors, assign=True)
        except RuntimeError as error:
            raise DamagedSnapshot(f"this backbone does not fit the model's layout: {error}") from error
        if about.get("shape") != list(maps.shape):
            raise DamagedSnapshot("this backbone gives maps of another shape than the model's layout")
        return maps.eval()


class Classifier(nn.Module):
    """The trainable classifier over feature maps: the layout's nodes behind the map, and a head: (B, channels, places)
    -> (B, classes).

    Parameters
    ----------
    classes
        Names for messages and files; the head has as many outputs.
    """

    def __init__(self, layout: Layout, classes: Sequence[str]) -> None:
        super().__init__()
        fresh = whole(layout, "", classes)
        self.layout = layout
        self.classes = tuple(classes)
        self.source = map_nodes(layout)[-1]
        self.nodes = layout.nodes[len(map_nodes(layout)) :]
        self.blocks = nn.ModuleDict({node.name: fresh.block(node) for node in self.nodes})
        self.head = fresh.head

    def forward(self, maps: Tensor) -> Tensor:
        size = self.source.size
        given = maps.flatten(1) if size is None else maps.reshape(*maps.shape[:2], *size)
        features = _run(self.nodes, self.blocks, {self.source.name: given}) if self.nodes else given
        return cast(Tensor, self.head(features))  # (B, classes)

    @torch.no_grad()
    def start_from(self, engram: Engram) -> None:
        """Take what a trained network has in these places; of its head the first outputs, as many as there are."""
        for node in self.nodes:
            self.blocks[node.name].load_state_dict(engram.block(node).state_dict())
        self.head.weight.copy_(engram.head.weight[: len(self.classes)])
        self.head.bias.copy_(engram.head.bias[: len(self.classes)])

    @torch.no_grad()
    def widened(self, classes: Sequence[str]) -> Classifier:
        """A copy that knows more classes, whose outputs start as a new head's."""
        wider = Classifier(self.layout, (*self.classes, *classes)).to(self.head.weight.device)
        wider.blocks.load_state_dict(self.blocks.state_dict())
        wider.head.weight[: len(self.classes)] = self.head.weight
        wider.head.bias[: len(self.classes)] = self.head.bias
        return wider

    def freeze(self) -> Classifier:
        """Make it unchangeable, as a copy."""
        frozen = copy.deepcopy(self).eval()
        for parameter in frozen.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None
        return frozen

    def dump(self) -> bytes:
        """The classifier as bytes."""
        return pack("classifier", {"classes": list(self.classes)}, self.state_dict())

    @classmethod
    def load(cls, layout: Layout, data: bytes) -> Classifier:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("classifier", data)
        try:
            with torch.device("meta"):
                classifier = cls(layout, cast(list[str], about["classes"]))
            classifier.load_state_dict(tensors, assign=True)
        except (KeyError, TypeError, RuntimeError) as error:
            raise DamagedSnapshot(f"this classifier does not fit the model's layout: {error}") from error
        return classifier.freeze()


@torch.no_grad()
def joined(maps: FeatureMaps, classifier: Classifier, task: str, start: int, classes: Sequence[str]) -> Engram:
    """Backbone and classifier as one network, for heatmaps, with only one task's part of the head.

    Parameters
    ----------
    start
        Where the task's classes begin among the classifier's.
    """
    with torch.device("meta"):  # no memory and no random draw for modules that are replaced at once
        engram = whole(maps.layout, task, classes)
    for node in maps.layout.nodes:
        blocks = maps.blocks if node.name in maps.blocks else classifier.blocks
        engram.blocks[node.name] = copy.deepcopy(blocks[node.name])
    rows = slice(start, start + len(classes))
    engram.head.weight = nn.Parameter(classifier.head.weight[rows].clone())
    engram.head.bias = nn.Parameter(classifier.head.bias[rows].clone())
    return engram.freeze()
