"""Relevance maps as bits, and the shared weights that they choose from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from engram.errors import DamagedSnapshot
from engram.nn.capacity import check_weights
from engram.nn.layout import Layout, Node
from engram.nn.network import Engram

HEAD = "head"
"""The name under which the head's weights lie among those of the layout's nodes."""


def packed(mask: Tensor) -> Tensor:
    """A bool tensor of n values as (ceil(n / 8),) uint8, the first value in the lowest bit."""
    return torch.from_numpy(np.packbits(mask.numpy().ravel(), bitorder="little"))


def unpacked(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """The inverse of `packed`.

    Raises
    ------
    DamagedSnapshot
        when there are not as many bits as the shape needs.
    """
    count = math.prod(shape)
    if bits.dtype != torch.uint8 or bits.shape != (-(-count // 8),):
        raise DamagedSnapshot(f"a map of {count} weights does not fit into {tuple(bits.shape)} of {bits.dtype}")
    values = np.unpackbits(bits.numpy(), count=count, bitorder="little").astype(bool)
    return torch.from_numpy(values.reshape(tuple(shape)))


@dataclass(frozen=True)
class RelevanceMap:
    """The relevance map of one task: the weights it uses, the values of those it was first to fix, and its own norms.

    Weights are counted row by row within the corner of each layer that the network had when the task was learned.
    """

    task: str
    classes: tuple[str, ...]
    units: dict[str, int]
    """Units of the network in each layer, on the day the task was learned."""
    used: dict[str, Tensor]
    """For each mixing node, and the head (the rows of the task's own classes): which weights, as packed bits."""
    fixed: dict[str, Tensor]
    """Those of them that never move again, whoever fixed them first, as packed bits."""
    values: dict[str, Tensor]
    """(k,) float32: the values of those that this task was first to fix."""
    norms: dict[str, Tensor]
    """State of the normalisations, by its name in the engram."""
    peak: Tensor
    """(2,): mean and standard deviation of the logits' soft maximum over held-out images."""


@dataclass(frozen=True)
class SharedWeight:
    """One node's weights in the shared network: (rows, columns...) float32, and as bools what is used and what fixed.

    `first` holds the number of the task that fixed a weight, -1 where it is free.
    """

    weight: Tensor
    used: Tensor
    first: Tensor

    @property
    def fixed(self) -> Tensor:
        return self.first >= 0

    @classmethod
    def blank(cls, shape: Sequence[int]) -> SharedWeight:
        shape = tuple(shape)
        return cls(torch.zeros(shape), torch.zeros(shape, dtype=torch.bool), torch.full(shape, -1, dtype=torch.int16))

    def lay(self, larger: SharedWeight) -> None:
        """Write this into the corner of a larger one."""
        corner = tuple(slice(0, side) for side in self.weight.shape)
        for now, then in ((larger.weight, self.weight), (larger.used, self.used), (larger.first, self.first)):
            now[corner] = then

    def copy(self) -> SharedWeight:
        return SharedWeight(self.weight.clone(), self.used.clone(), self.first.clone())


class SharedNetwork:
    """The weights of all tasks and their maps. Like a stack of engrams, it only ever grows by copying.

    The head has one row for each distinct label: a task with new labels adds rows, one whose labels are known shares
    those that are there. A task's map covers the rows of its own labels alone.

    Parameters
    ----------
    units
        Of the network in each layer.
    loose
        Values of the weights that some map uses and nobody has fixed, node by node; may be empty.

    Raises
    ------
    InvalidDefinition
        It would have more weights than are taken.
    """

    def __init__(
        self,
        layout: Layout,
        units: Mapping[str, int],
        maps: Sequence[RelevanceMap] = (),
        loose: Mapping[str, Tensor] | None = None,
    ) -> None:
        check_weights(layout, units)
        self.layout = layout
        self.units = dict(units)
        self.maps = tuple(maps)
        self.labels = tuple(dict.fromkeys(label for one in self.maps for label in one.classes))
        self.shared_weights = {
            name: SharedWeight.blank(shape) for name, shape in shapes(layout, units, len(self.labels)).items()
        }
        for number, one in enumerate(self.maps):
            self._apply(number, one)
        for name, values in (loose or {}).items():
            self._loosen(name, values)

    def _apply(self, number: int, one: RelevanceMap) -> None:
        for name, whole in self.shared_weights.items():
            place = self.place(one, name)
            shared_weight = SharedWeight(*(part[place] for part in (whole.weight, whole.used, whole.first)))
            used, fixed = (unpacked(bits[name], shared_weight.weight.shape) for bits in (one.used, one.fixed))
            newly = fixed & ~shared_weight.fixed
            if int(newly.sum()) != len(one.values[name]):
                raise DamagedSnapshot(f"the map of task {one.task!r} was learned on other weights")
            weight, first = shared_weight.weight.clone(), shared_weight.first.clone()
            weight[newly], first[newly] = one.values[name], number
            whole.weight[place], whole.used[place], whole.first[place] = weight, shared_weight.used | used, first

    def _loosen(self, name: str, values: Tensor) -> None:
        shared_weight = self.shared_weights[name]
        where = shared_weight.used & ~shared_weight.fixed
        if int(where.sum()) != len(values):
            raise DamagedSnapshot(f"{len(values)} loose weights in {name} are not those that the maps use")
        shared_weight.weight[where] = values

    def loose(self) -> dict[str, Tensor]:
        """For each node the values (k,) of weights that are used and not fixed."""
        return {
            name: shared_weight.weight[shared_weight.used & ~shared_weight.fixed]
            for name, shared_weight in self.shared_weights.items()
        }

    def place(self, one: RelevanceMap, name: str) -> tuple[Tensor | slice, ...]:
        """Where a map's weights of a node lie: its rows, and the corner that the network was then."""
        then = shapes(self.layout, one.units, len(one.classes))[name]
        rows = self.rows(one.classes) if name == HEAD else slice(0, then[0])
        return (rows, *(slice(0, side) for side in then[1:]))

    def rows(self, classes: Sequence[str]) -> Tensor:
        """The head's rows of some labels, as int64."""
        return torch.tensor([self.labels.index(label) for label in classes])

    def appended(self, one: RelevanceMap, loose: Mapping[str, Tensor]) -> SharedNetwork:
        """A new network with one map more."""
        return SharedNetwork(self.layout, self.units, (*self.maps, one), loose)

    def grown(self, units: Mapping[str, int]) -> SharedNetwork:
        """A new network with more units: what there is lies in the corner of it, and computes what it did."""
        larger = SharedNetwork(self.layout, units)
        larger.maps, larger.labels = self.maps, self.labels
        larger.shared_weights[HEAD] = SharedWeight.blank(shapes(self.layout, units, len(self.labels))[HEAD])
        for name, shared_weight in self.shared_weights.items():
            shared_weight.lay(larger.shared_weights[name])
        return larger

    def engram(self, one: RelevanceMap) -> Engram:
        """A task's pass: an ordinary frozen engram of the weights it uses, with 0 for the others and for all biases."""
        with torch.device("meta"):  # no memory and no random draw for weights that are replaced at once
            engram = Engram(self.layout, one.task, one.classes, dict.fromkeys(self.layout.layers, 0), one.units)
        state = {name: torch.zeros(part.shape) for name, part in engram.state_dict().items() if name.endswith("bias")}
        for name, shared_weight in self.shared_weights.items():
            weight = shared_weight.weight[self.place(one, name)]
            used = unpacked(one.used[name], weight.shape)
            # Not a product: 0 times a negative weight is -0, whose sums may differ by a bit from those of 0.
            state[state_name(self.layout, name)] = torch.where(used, weight, 0.0)
        try:
            engram.load_state_dict({**state, **one.norms}, assign=True)
        except RuntimeError as error:
            raise DamagedSnapshot(f"the map of task {one.task!r} does not fit the model's layout: {error}") from error
        return engram.freeze()

    @cached_property
    def owned(self) -> dict[str, list[int]]:
        """For each layer, how many of its weights each task was first to fix; without the head's."""
        counts = {layer: [0] * len(self.maps) for layer in self.layout.layers}
        for node in mixing(self.layout):
            first = self.shared_weights[node.name].first
            found = torch.bincount(first[first >= 0], minlength=len(self.maps)).tolist()
            counts[node.layer] = [a + b for a, b in zip(counts[node.layer], found, strict=True)]
        return counts

    @cached_property
    def weights(self) -> dict[str, int]:
        """How many weights each layer has."""
        return {
            layer: sum(
                self.shared_weights[node.name].weight.numel() for node in mixing(self.layout) if node.layer == layer
            )
            for layer in self.layout.layers
        }


def mixing(layout: Layout) -> list[Node]:
    """The nodes that have weights."""
    return [node for node in layout.nodes if node.mixing]


def shapes(layout: Layout, units: Mapping[str, int], labels: int) -> dict[str, tuple[int, ...]]:
    """The shape of every node's weights, and of the head's."""
    found: dict[str, tuple[int, ...]] = {}
    for node in mixing(layout):
        kernel = (node.kernel, node.kernel) if node.operation == "conv" else ()
        found[node.name] = (units[node.layer], layout.incoming(node, units), *kernel)
    found[HEAD] = (labels, units[layout.features.layer] * layout.features.per_unit)
    return found


def state_name(layout: Layout, name: str) -> str:
    """What an engram's state calls the weights of a node."""
    if name == HEAD:
        return "head.weight"
    return f"blocks.{name}.{'conv' if layout.node(name).operation == 'conv' else 'linear'}.weight"
