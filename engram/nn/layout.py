"""Layouts: the graph of operations that every engram of a model follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Operation = Literal["dense", "conv", "max_pool", "global_average", "flatten", "add"]

IMAGE = "image"
"""The source that is no node: the image itself, the same for every owner."""


@dataclass(frozen=True)
class Node:
    """One operation of a layout: what it reads, and whose units it computes.

    `dense` and `conv` are *mixing*: for owner s they read the units of all owners <= s. The others act on the owner's
    own units alone, which is why pooling, flattening and residual sums need no prefix.
    """

    name: str
    operation: Operation
    sources: tuple[str, ...]
    layer: str
    """Whose units come out. Nodes whose outputs are added share a layer, and so one choice of surviving units."""
    size: tuple[int, int] | None
    """Height and width of the output; None once it is a vector."""
    per_unit: int = 1
    """How many consecutive values of a vector belong to one unit: height x width after `flatten`."""
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    norm: bool = False
    rectify: bool = False

    @property
    def mixing(self) -> bool:
        return self.operation in ("dense", "conv")


@dataclass(frozen=True)
class Layout:
    """Nodes in the order of computation, and the units one task may try in each layer."""

    nodes: tuple[Node, ...]
    widths: Mapping[str, int]
    channels: int
    image_size: tuple[int, int]
    """Height and width of the image."""

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.widths)

    @property
    def features(self) -> Node:
        """The node that heads read."""
        return self.nodes[-1]

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def read(self) -> frozenset[str]:
        """Names of the nodes whose prefixes are read: by mixing nodes, and by heads."""
        sources = {source for node in self.nodes if node.mixing for source in node.sources}
        return frozenset(sources | {self.features.name}) - {IMAGE}

    def pooled(self) -> frozenset[str]:
        """Names of the rectified convolutions of which nothing but a maximum over windows is read."""
        readers: dict[str, list[Operation]] = {}
        for node in self.nodes:
            for source in node.sources:
                readers.setdefault(source, []).append(node.operation)
        convolutions = [node.name for node in self.nodes if node.operation == "conv" and node.rectify]
        return frozenset(name for name in convolutions if readers.get(name) == ["max_pool"])

    def over(self) -> tuple[tuple[str, ...], ...]:
        """For each node the names of those that nothing reads once it is computed; the features are for heads."""
        last = {node.name: number for number, node in enumerate(self.nodes)}
        last |= {source: number for number, node in enumerate(self.nodes) for source in node.sources}
        del last[self.features.name]
        return tuple(
            tuple(name for name, final in last.items() if final == number) for number in range(len(self.nodes))
        )

    def incoming(self, node: Node, units: Mapping[str, int]) -> int:
        """How many channels or values a mixing node reads, given the units of each layer that it may read."""
        (source,) = node.sources
        if source == IMAGE:
            height, width = self.image_size
            return self.channels * (height * width if node.operation == "dense" else 1)
        origin = self.node(source)
        return units[origin.layer] * origin.per_unit


class LayoutBuilder:
    """A builder of layouts, node by node, that keeps track of sizes."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self._channels = channels
        self._size = (height, width)
        self._nodes: dict[str, Node] = {}
        self._widths: dict[str, int] = {}

    def _size_of(self, source: str) -> tuple[int, int]:
        size = self._size if source == IMAGE else self._nodes[source].size
        assert size is not None, f"{source} is a vector; a spatial operation cannot read it"
        return size

    def _add(self, node: Node) -> str:
        assert node.name not in self._nodes, f"two nodes are called {node.name}"
        self._nodes[node.name] = node
        return node.name

    def layer(self, name: str, units: int) -> str:
        """Declare a layer of so many candidate units."""
        self._widths[name] = units
        return name

    def conv(self, name: str, source: str, layer: str, kernel: int, stride: int = 1, *, rectify: bool = True) -> str:
        """A convolution without bias, normalised over the batch, same padding."""
        padding = kernel // 2
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in self._size_of(source))
        return self._add(
            Node(name, "conv", (source,), layer, (height, width), 1, kernel, stride, padding, True, rectify)
        )

    def dense(self, name: str, source: str, layer: str) -> str:
        return self._add(Node(name, "dense", (source,), layer, None, rectify=True))

    def max_pool(self, name: str, source: str, kernel: int, stride: int, padding: int = 0) -> str:
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in self._size_of(source))
        node = Node(name, "max_pool", (source,), self._nodes[source].layer, (height, width), 1, kernel, stride, padding)
        return self._add(node)

    def global_average(self, name: str, source: str) -> str:
        return self._add(Node(name, "global_average", (source,), self._nodes[source].layer, None))

    def flatten(self, name: str, source: str) -> str:
        height, width = self._size_of(source)
        return self._add(Node(name, "flatten", (source,), self._nodes[source].layer, None, height * width))

    def add(self, name: str, trunk: str, branch: str) -> str:
        """A residual sum, rectified. Both sides must have one layer: one choice of surviving units."""
        layers = {self._nodes[trunk].layer, self._nodes[branch].layer}
        assert len(layers) == 1, f"{name} adds units of different layers: {sorted(layers)}"
        node = Node(name, "add", (trunk, branch), layers.pop(), self._size_of(branch), rectify=True)
        return self._add(node)

    def done(self) -> Layout:
        return Layout(tuple(self._nodes.values()), dict(self._widths), self._channels, self._size)
