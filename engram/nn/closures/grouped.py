"""Grouped trunks: convolutions of many tasks, of a few images each, as the groups of one convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import NamedTuple, Self

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.closures.closure import BlockOwner, reads_of
from engram.nn.closures.operations import Convolution, MaxPool, Operation
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.shapes import SHAPES, Rows, shape_of

GROUPS = (8, 4, 1)
"""Groups that a convolution has, and no other number: each is set up, and tried, once."""

EACH = (2, 1)
"""Images of a group: two, and one where a task has an odd number of them."""

MOST_IMAGES = 8
"""Images of a task up to which it takes part; of more its own convolutions are as fast."""

LEAST_GROUPS = 3
"""Of fewer, convolutions one by one are as fast."""

MOST_WEIGHTS = 2**16
"""Of a trunk: those of the tasks that are asked are laid side by side for every batch."""

MOST_MORE = 2**22
"""Multiply-adds an image that a narrow task may take beyond its own ones, in groups as wide as the widest task's."""


Group = tuple[str, Rows]
"""A task, and the images that it is shown."""


class Kind(NamedTuple):
    """What a convolution is beside its weights."""

    channels: int
    units: int
    size: tuple[int, int]
    """Height and width of what it reads."""
    kernel: int
    stride: int
    padding: int


@dataclass(frozen=True)
class Stage:
    """One convolution of each of T tasks, and what pools it."""

    weights: Tensor
    """(T, units, kernel, kernel, channels)."""
    biases: Tensor
    """(T, units)."""
    stride: int
    padding: int
    rectify: bool
    pools: tuple[MaxPool, ...]

    def __call__(self, values: Tensor, tasks: Tensor) -> Tensor:
        """(B, G * channels, H, W) -> (B, G * units, H', W'), both with channels last: each group by its task (G,)."""
        weight = self.weights.index_select(0, tasks).flatten(0, 1).permute(0, 3, 1, 2)
        bias = self.biases.index_select(0, tasks).flatten()
        found = F.conv2d(values, weight, bias, self.stride, self.padding, 1, len(tasks))
        if self.rectify:
            found = found.relu_()
        for pool in self.pools:
            found = pool(found)
        return found


class GroupedTrunks:
    """The trunks of the tasks of a network: their convolutions and poolings, up to where maps are flattened.

    A narrow task is as wide as the widest here, by weights of zero. Whether an image has the same bytes as by its own
    task's convolutions is tried for each kind of them (`_alike`), then for the trunks that answer (`prove`), and a task
    takes part with as many images as it has.

    Parameters
    ----------
    units
        For each task that takes part, in order, those that its trunk ends with.
    shapes
        For each of these those that its images would be computed in by themselves, and to the same bytes.
    image
        Channels, height and width of an image.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        units: Mapping[str, int],
        shapes: Mapping[str, frozenset[int]],
        steps: int,
        image: tuple[int, int, int],
    ) -> None:
        self._stages = tuple(stages)
        self._units = dict(units)
        self._shapes = dict(shapes)
        self._numbers = {task: number for number, task in enumerate(units)}
        self._threads = torch.get_num_threads()
        self._image = image
        self.steps = steps
        """Nodes of a trunk."""

    def takes(self, task: str, images: int) -> bool:
        """Whether a task takes part when it is shown so many images."""
        return task in self._numbers and images <= MOST_IMAGES and shape_of(images) in self._shapes[task]

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
        trunk = _trunk(layout)
        kinds = {task: _kinds(trunk, owner) for task, owner in owners.items() if not reads_of(owner)} if trunk else {}
        widest = [max(stage, key=lambda kind: kind.units).units for stage in zip(*kinds.values(), strict=True)]
        padded = {task: _padded(own, widest) for task, own in kinds.items()}
        threads = torch.get_num_threads()
        shapes = {
            task: frozenset.intersection(*map(_alike, own, padded[task], [threads] * len(own)))
            for task, own in kinds.items()
            if all(kind.units > 1 and min(kind.size) > 1 for kind in own)  # else the order of a map cannot be told
            and sum(map(_weights, padded[task])) <= MOST_WEIGHTS
            and sum(map(_work, padded[task])) <= sum(map(_work, own)) + MOST_MORE
        }
        some = [task for task, fit in shapes.items() if fit]
        stages: list[Stage] = []
        for node, pools in _by_convolution(trunk) if len(some) >= LEAST_GROUPS else ():
            wide = padded[some[0]][len(stages)]
            convolutions = [operation(owners[task], node) for task in some]
            given = [(one.weight, one.bias) for one in convolutions if isinstance(one, Convolution)]
            poolings = tuple(map(MaxPool, pools))
            stages.append(Stage(*_stacked(given, wide), node.stride, node.padding, node.rectify, poolings))
        units = {task: kinds[task][-1].units for task in some} if stages else {}
        return cls(stages, units, shapes, len(trunk), (layout.channels, *layout.image_size))

    def prove(self, alone: Callable[[str, Tensor], Tensor]) -> None:
        """Go on with those tasks and shapes alone in which drawn images have the bytes that they have by themselves.

        Parameters
        ----------
        alone
            Gives what a task's own trunk makes of images (B, C, H, W), B one of the shapes.
        """
        if not self._stages:
            return
        generator = torch.Generator().manual_seed(len(self._numbers))
        drawn = torch.rand(MOST_IMAGES, *self._image, generator=generator, dtype=torch.float32)
        for shape in (shape for shape in SHAPES if shape <= MOST_IMAGES):
            some = {task: numpy.arange(shape) for task in self._numbers if shape in self._shapes[task]}
            for task, found in self.maps(drawn, some).items():
                if not torch.equal(found, alone(task, drawn[:shape])):
                    self._shapes[task] -= {shape}

    def maps(self, images: Tensor, asked: Mapping[str, Rows]) -> dict[str, Tensor]:
        """What the trunks of some of the tasks that are asked give for some images, (n, units, H', W') each.

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
        if sum(-(-len(rows) // EACH[0]) for rows in wanted.values()) < LEAST_GROUPS:
            return {}
        parts: list[Tensor] = []
        found: dict[str, list[int]] = {task: [] for task in wanted}
        count = 0
        for some, size in (part for each in EACH for part in _cut(_groups(wanted, each))):
            parts.append(self._computed(images, some, size))
            for task, rows in some:
                found[task] += range(count, count + len(rows))
                count += len(rows)
            count += (size - len(some)) * len(some[0][1])
        order = torch.tensor([place for places in found.values() for place in places])
        maps = torch.split(torch.cat(parts).index_select(0, order), [len(places) for places in found.values()])
        return {
            task: part[..., : self._units[task]].permute(0, 3, 1, 2) for task, part in zip(found, maps, strict=True)
        }

    def _computed(self, images: Tensor, groups: Sequence[Group], size: int) -> Tensor:
        """(size * each, H', W', units): of groups of as many images each, and of the first again up to the size."""
        filled = [*groups, *[groups[0]] * (size - len(groups))]
        tasks = torch.tensor([self._numbers[task] for task, _ in filled])
        rows = torch.from_numpy(numpy.stack([rows for _, rows in filled], 1).flatten())
        values = images.index_select(0, rows).view(len(groups[0][1]), -1, *images.shape[2:])  # (each, size * C, H, W)
        values = values.contiguous(memory_format=torch.channels_last)
        for stage in self._stages:
            values = stage(values, tasks)
        last = values.permute(0, 2, 3, 1)  # (each, H', W', size * units)
        apart = last.reshape(*last.shape[:3], size, -1).permute(3, 0, 1, 2, 4)
        return apart.reshape(-1, *apart.shape[2:])


def _groups(asked: Mapping[str, Rows], each: int) -> list[Group]:
    """All groups of so many images."""
    if each == 1:
        return [(task, rows[-1:]) for task, rows in asked.items() if len(rows) % EACH[0]]
    starts = [(task, first) for task, rows in asked.items() for first in range(0, len(rows) - each + 1, each)]
    return [(task, asked[task][first : first + each]) for task, first in starts]


def _cut(groups: Sequence[Group]) -> Iterator[tuple[Sequence[Group], int]]:
    """Groups in parts that are computed at once, and how many each part is filled up to."""
    rest = list(groups)
    while rest:
        size = next(size for size in GROUPS if size <= len(rest) + (size > 1))  # one more is soon computed
        yield rest[:size], size
        rest = rest[size:]


def _trunk(layout: Layout) -> list[Node]:
    """The convolutions and poolings that a layout begins with, if what they give is flattened for dense layers."""
    nodes = iter(layout.nodes)
    trunk: list[Node] = []
    for node in nodes:
        if node.sources != ((trunk[-1].name if trunk else IMAGE),):
            return []
        if node.operation not in ("conv", "max_pool"):
            break
        trunk.append(node)
    else:
        return []
    rest = [node.operation, *(one.operation for one in nodes)]
    fits = rest[0] == "flatten" and set(rest[1:]) <= {"dense"} and trunk and trunk[0].operation == "conv"
    return trunk if fits and all(one.kernel > 1 for one in trunk if one.operation == "conv") else []


def _by_convolution(trunk: Sequence[Node]) -> list[tuple[Node, list[Node]]]:
    """Each convolution of a trunk, and the poolings that follow it."""
    found: list[tuple[Node, list[Node]]] = []
    for node in trunk:
        if node.operation == "conv":
            found.append((node, []))
        else:
            found[-1][1].append(node)
    return found


def _kinds(trunk: Sequence[Node], owner: BlockOwner) -> list[Kind]:
    """The kinds of an owner's convolutions."""
    size, found = owner.layout.image_size, []
    for node in trunk:
        if node.operation == "conv":
            channels, units = owner.layout.incoming(node, owner.reach), owner.units[node.layer]
            found.append(Kind(channels, units, size, node.kernel, node.stride, node.padding))
        assert node.size is not None, "what is not flattened yet is a map"
        size = node.size
    return found


def _padded(kinds: Sequence[Kind], widest: Sequence[int]) -> list[Kind]:
    """The kinds of convolutions that have so many units."""
    channels = [kinds[0].channels, *widest]
    return [
        kind._replace(channels=given, units=units) for kind, given, units in zip(kinds, channels, widest, strict=False)
    ]


def _weights(kind: Kind) -> int:
    return kind.channels * kind.units * kind.kernel**2


def _work(kind: Kind) -> int:
    """Multiply-adds an image, or a few more."""
    return _weights(kind) * kind.size[0] * kind.size[1] // kind.stride**2


def _stacked(given: Sequence[tuple[Tensor, Tensor]], wide: Kind) -> tuple[Tensor, Tensor]:
    """Weights (T, units, kernel, kernel, channels) and biases (T, units) of as many, zeros where a task has fewer."""
    weights = given[0][0].new_zeros(len(given), wide.units, wide.kernel, wide.kernel, wide.channels)
    biases = weights.new_zeros(len(given), wide.units)
    for number, (weight, bias) in enumerate(given):
        units, channels = weight.shape[:2]
        weights[number, :units, :, :, :channels] = weight.permute(0, 2, 3, 1)
        biases[number, :units] = bias
    return weights, biases


@cache
def _alike(own: Kind, wide: Kind, threads: int) -> frozenset[int]:
    """The shapes in which images have the same bytes by their own convolution as in groups, on this machine.

    It is so where each value is summed up in one order by all kernels, which no library promises.

    Parameters
    ----------
    threads
        Those there are: what is found out counts for these alone.
    """
    drawn = partial(torch.randn, generator=torch.Generator().manual_seed(own.units), dtype=torch.float32)
    weight = drawn(own.units, own.channels, own.kernel, own.kernel)
    bias = drawn(own.units)
    images = drawn(MOST_IMAGES, own.channels, *own.size)
    layer = weight.contiguous(memory_format=torch.channels_last)
    stage = Stage(*_stacked([(weight, bias)], wide), own.stride, own.padding, False, ())
    given = F.pad(images, (0, 0, 0, 0, 0, wide.channels - own.channels))
    found: list[Tensor] = []
    for groups, each in product(GROUPS, EACH):
        values = given[:each].repeat(1, groups, 1, 1).contiguous(memory_format=torch.channels_last)
        maps = stage(values, torch.zeros(groups, dtype=torch.int64))  # (each, groups * units, H', W')
        found += [maps[:, first : first + own.units] for first in (0, (groups - 1) * wide.units)]
    fit = set()
    for shape in (shape for shape in SHAPES if shape <= MOST_IMAGES):
        some = images[:shape].contiguous(memory_format=torch.channels_last)
        alone = F.conv2d(some, layer, bias, own.stride, own.padding)
        if all(torch.equal(alone[: len(maps)], maps[:shape]) for maps in found):
            fit.add(shape)
    return frozenset(fit)
