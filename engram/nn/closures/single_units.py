"""Single-unit trunks: maps of tasks that have one unit in each layer, as the channels of one map.

What a network is pruned to where it has learned nothing is no cheaper for being small: an operation on it is all
set-up. Of such tasks each operation is made once for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple, Self

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.closure import BlockOwner, reads_of
from engram.nn.closures.operations import Convolution, MaxPool, Operation, missing
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.shapes import SHAPES, Rows, in_shapes, shape_of

SIZES = (16, 32, 64)
"""Channels of a map, and no other number: each is tried once, for each kind of convolution."""

MOST_IMAGES = 8
"""Images of a task up to which it takes part; one alone is computed sooner by a kernel of its own."""

TRIED_SHAPES = tuple(shape for shape in SHAPES if 1 < shape <= MOST_IMAGES)

LARGEST_MAP = 2**14
"""Places of a map up to which a network takes part: larger ones take long enough, and much memory if at once."""

MOST_PROVED = 16
"""Tasks whose weights it is proved on: in which order a kernel sums up does not depend on them."""

LEAST_TASKS = 2

DRAWS = 4
"""Weights by which it is found out whether two ways of computing agree."""

Alone = Callable[[str, Tensor], Sequence[Tensor]]
"""From a task and images (B, C, H, W), B one of `SHAPES`, or maps, to its answer."""


class ChannelKind(NamedTuple):
    """What a convolution of one channel is beside its weight."""

    size: tuple[int, int]
    """Height and width of what it reads."""
    channels_last: bool
    """Whether that is in channels-last order by its strides: of one channel both orders are one, and kernels differ."""
    kernel: int
    stride: int
    padding: int


class Order(NamedTuple):
    """How a convolution for many channels has the bytes of a task's own."""

    turned: bool
    """Whether with lines and columns in each other's place."""
    shapes: frozenset[int]
    """The shapes of the task's own for which it has."""


class Shared(NamedTuple):
    """One node of all T tasks."""

    node: Node
    turned: bool
    weights: Tensor
    """(T, 1, kernel, kernel), turned where the node is; empty where it has none."""
    biases: Tensor
    """(T,)."""


class SingleUnitTrunks:
    """The trunks of tasks that have one unit in each layer, up to where maps become vectors.

    Of the first convolutions, which read the image, each task has its own; all others are computed for the images of
    several tasks at once, each a channel. Whether an image has the same bytes as by its own task's operations is tried
    for each kind of convolution (`_order`), then for the networks that answer (`prove`).

    Parameters
    ----------
    nodes
        In the order of computation.
    stems
        For each task the operations of the nodes that read the image, by their names.
    shapes
        Those in which all kinds of its convolutions have the same bytes.
    image
        Channels, height and width of an image.
    """

    def __init__(
        self,
        nodes: Sequence[Shared],
        stems: Mapping[str, Mapping[str, Operation]],
        shapes: frozenset[int],
        image: tuple[int, int, int],
    ) -> None:
        self._nodes = tuple(nodes)
        self._stems = dict(stems)
        self._numbers = {task: number for number, task in enumerate(stems)}
        self._shapes = dict.fromkeys(stems, shapes)
        self._threads = torch.get_num_threads()
        self._image = image
        self.steps = len(nodes)
        """Nodes of a trunk."""

    @classmethod
    def of(
        cls, layout: Layout, owners: Mapping[str, BlockOwner], operation: Callable[[BlockOwner, Node], Operation]
    ) -> Self:
        """Of those tasks of a network that can take part.

        Parameters
        ----------
        operation
            Gives the operation of an owner's node.
        """
        trunk, image = _trunk(layout), (layout.channels, *layout.image_size)
        layers = {node.layer for node in trunk}
        some = [owner for owner in owners.values() if trunk and _single(owner, layers)]
        if len(some) < LEAST_TASKS:
            return cls([], {}, frozenset(), image)
        operations = {node.name: [operation(owner, node) for owner in some] for node in trunk}
        kinds = _kinds(trunk, {name: each[0] for name, each in operations.items()}, image)
        orders = {name: _order(kind, torch.get_num_threads()) for name, kind in kinds.items()}
        shapes = frozenset.intersection(*(order.shapes for order in orders.values())) if orders else frozenset()
        nodes = [_shared(node, orders.get(node.name), operations[node.name]) for node in trunk]
        reading = [node.name for node in trunk if node.sources == (IMAGE,)]
        stems = {owner.task: {name: operations[name][number] for name in reading} for number, owner in enumerate(some)}
        return cls(nodes, stems, shapes, image)

    def takes(self, task: str, images: int) -> bool:
        """Whether a task takes part when it is shown so many images."""
        return task in self._numbers and images <= MOST_IMAGES and shape_of(images) in self._shapes[task]

    def prove(self, alone: Alone, finished: Alone, answered: Alone) -> None:
        """Go on with those tasks and shapes alone in which drawn images have the bytes that they have by themselves.

        Parameters
        ----------
        alone
            Gives what each node of a task's own trunk makes of images.
        finished
            Gives a task's answer where the trunk has found maps (n, 1, H', W'), n any number.
        answered
            Gives a task's answer to images.
        """
        some = list(self._numbers)[:MOST_PROVED]
        if not some:
            return
        generator = torch.Generator().manual_seed(len(self._numbers))
        drawn = torch.rand(MOST_IMAGES, *self._image, generator=generator, dtype=torch.float32)
        for shape in TRIED_SHAPES:
            proved = [task for task in some if shape in self._shapes[task]]
            for first in range(0, len(proved), SIZES[-1] // shape):
                part = proved[first : first + SIZES[-1] // shape]
                values = self._computed(drawn, dict.fromkeys(part, numpy.arange(shape)))
                for number, task in enumerate(part):
                    found = [value[0, number * shape : (number + 1) * shape].unsqueeze(1) for value in values]
                    fits = _equal(found, alone(task, drawn[:shape]))
                    expected = answered(task, drawn[:shape])
                    for count in range(shape // 2 + 1, shape + 1):  # all that are computed in this shape
                        some_maps = found[-1][:count].contiguous()
                        fits = fits and _equal(finished(task, some_maps), [value[:count] for value in expected])
                    for other in () if fits else (task, *list(self._numbers)[MOST_PROVED:]):
                        self._shapes[other] -= {shape}

    def maps(self, images: Tensor, asked: Mapping[str, Rows]) -> dict[str, Tensor]:
        """What the trunks of some of the tasks that are asked give for some images, (n, 1, H', W') each.

        Parameters
        ----------
        images
            (B, C, H, W).
        asked
            For each task the rows of the images.
        """
        if torch.get_num_threads() != self._threads:  # for which it was not tried
            return {}
        wanted = {task: rows for task, rows in asked.items() if self.takes(task, len(rows))}
        found: dict[str, Tensor] = {}
        for part in _parts(wanted) if len(wanted) >= LEAST_TASKS else ():
            counts = [len(rows) for rows in part.values()]
            last = self._computed(images, part)[-1][0, : sum(counts)].unsqueeze(1).contiguous()  # (count, 1, H', W')
            found |= zip(part, torch.split(last, counts), strict=True)
        return found

    def _computed(self, images: Tensor, asked: Mapping[str, Rows]) -> list[Tensor]:
        """Of each node (1, channels, H, W): the images of one task after the other, then some up to the size."""
        counts = [len(rows) for rows in asked.values()]
        count = sum(counts)
        size = next(size for size in SIZES if size >= count)
        numbers = numpy.repeat([self._numbers[task] for task in asked], counts)
        tasks = torch.from_numpy(numpy.resize(numbers, size))
        values: dict[str, Tensor] = {}
        for node, turned, weights, biases in self._nodes:
            if node.sources == (IMAGE,):
                own = [
                    in_shapes(images, self._stems[task][node.name], rows).flatten(0, 1) for task, rows in asked.items()
                ]
                values[node.name] = F.pad(torch.cat(own), (0, 0, 0, 0, 0, size - count))[None]  # (1, size, H, W)
                continue
            given = [values[source] for source in node.sources]
            if node.operation == "conv":
                weight, bias = weights.index_select(0, tasks), biases.index_select(0, tasks)
                values[node.name] = _convolved(node, given[0], weight, bias, turned=turned)
            elif node.operation == "add":
                values[node.name] = (given[0] + given[1]).relu_()
            else:
                values[node.name] = MaxPool(node)(given[0])
        return list(values.values())


def _convolved(node: Node, values: Tensor, weight: Tensor, bias: Tensor, *, turned: bool) -> Tensor:
    """Each channel by a weight of its own, turned already: (1, channels, H, W) -> (1, channels, H', W')."""
    values = values.transpose(2, 3) if turned else values
    values = values.contiguous(memory_format=torch.channels_last)
    found = F.conv2d(values, weight, bias, node.stride, node.padding, 1, values.shape[1])
    if node.rectify:
        found = found.relu_()
    return found.transpose(2, 3) if turned else found


def _parts(asked: Mapping[str, Rows]) -> Iterator[dict[str, Rows]]:
    """Tasks in parts that have as many images as there may be channels."""
    part: dict[str, Rows] = {}
    count = 0
    for task, rows in asked.items():
        if count + len(rows) > SIZES[-1]:
            yield part
            part, count = {}, 0
        part[task] = rows
        count += len(rows)
    yield part


def _trunk(layout: Layout) -> list[Node]:
    """The nodes that a layout begins with, up to where maps become vectors."""
    trunk: list[Node] = []
    for node in layout.nodes:
        if node.operation not in ("conv", "add", "max_pool"):
            break
        trunk.append(node)
    fits = trunk and all(IMAGE not in node.sources or node.operation == "conv" for node in trunk)
    fits = fits and all(math.prod(node.size or ()) <= LARGEST_MAP for node in trunk)
    return trunk if fits and layout.nodes[len(trunk)].sources == (trunk[-1].name,) else []


def _single(owner: BlockOwner, layers: set[str]) -> bool:
    return not reads_of(owner) and all(owner.units[layer] == 1 for layer in layers)


def _shared(node: Node, order: Order | None, operations: Sequence[Operation]) -> Shared:
    given = [one for one in operations if isinstance(one, Convolution)]
    if order is None or not given:
        return Shared(node, False, torch.empty(0), torch.empty(0))
    weights = torch.cat([one.weight[:, :1] for one in given])
    weights = weights.transpose(2, 3) if order.turned else weights
    return Shared(node, order.turned, weights.contiguous(), torch.cat([one.bias for one in given]))


def _kinds(
    trunk: Sequence[Node], operations: Mapping[str, Operation], image: tuple[int, ...]
) -> dict[str, ChannelKind]:
    """The kinds of the convolutions that do not read the image, by their names, as a task meets them."""
    values: dict[str, Tensor] = {IMAGE: torch.zeros(SHAPES[1], *image, dtype=torch.float32)}
    found: dict[str, ChannelKind] = {}
    for node in trunk:
        given = [values[source] for source in node.sources]
        if node.operation == "conv" and node.sources != (IMAGE,):
            height, width = given[0].shape[2:]
            found[node.name] = ChannelKind(
                (height, width), given[0].stride(1) == 1, node.kernel, node.stride, node.padding
            )
        values[node.name] = operations[node.name](*given)
    return found


def _equal(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@cache
def _order(kind: ChannelKind, threads: int) -> Order:
    """In which order a kernel for many channels sums up as a task's own convolution does, and for which shapes.

    That any does, no library promises.

    Parameters
    ----------
    threads
        Those there are: what is found out counts for these alone.
    """
    del threads
    orders = (_shapes_alike(kind, turned=turned) for turned in (False, True))
    return max(orders, key=lambda order: len(order.shapes))


def _shapes_alike(kind: ChannelKind, *, turned: bool) -> Order:
    drawn = partial(torch.randn, generator=torch.Generator().manual_seed(kind.kernel), dtype=torch.float32)
    node = Node("", "conv", ("",), "", None, 1, kind.kernel, kind.stride, kind.padding)
    fit = set(TRIED_SHAPES)
    for _ in range(DRAWS):
        weight, bias, images = drawn(1, 1, kind.kernel, kind.kernel), drawn(1), drawn(MOST_IMAGES, 1, *kind.size)
        layer, given = weight, _channels_last(images) if kind.channels_last else images
        if more := missing(node, 1):
            layer, given = (F.pad(part, (0, 0, 0, 0, 0, more)) for part in (layer, given))
        layer = layer.contiguous(memory_format=torch.channels_last)
        several: list[Tensor] = []
        for size in SIZES:
            values = images.transpose(0, 1).repeat(1, size // MOST_IMAGES, 1, 1)  # (1, size, H, W)
            own = (weight.transpose(2, 3) if turned else weight).repeat(size, 1, 1, 1)
            maps = _convolved(node, values, own, bias.repeat(size), turned=turned)
            several += torch.split(maps[0].unsqueeze(1), MOST_IMAGES)  # (MOST_IMAGES, 1, H', W') each
        for shape in sorted(fit):
            some = given[:shape].contiguous(memory_format=torch.channels_last)
            alone = F.conv2d(some, layer, bias, kind.stride, kind.padding)
            if not all(torch.equal(alone, maps[:shape]) for maps in several):
                fit.remove(shape)
    return Order(turned, frozenset(fit))


def _channels_last(images: Tensor) -> Tensor:
    """Maps of one channel (B, 1, H, W) in channels-last order by their strides."""
    height, width = images.shape[2:]
    return images.contiguous().as_strided(images.shape, (height * width, 1, width, 1))
