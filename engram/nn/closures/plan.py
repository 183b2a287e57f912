"""Plans: the closure of what is read as a list of steps, made once and run for every batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from engram.config.engines import Precision
from engram.nn.closures.closure import BlockOwner, closure_of, needed, reads_of
from engram.nn.closures.grouped import GroupedTrunks
from engram.nn.closures.half_steps import LEAST_WORK, MOST_SECONDS, MOST_WORK, Sizes, sizes
from engram.nn.closures.operations import Convolution, Gathering, Operation, operation_of
from engram.nn.closures.single_units import SingleUnitTrunks
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.reads import Read, columns
from engram.nn.shapes import RowwiseLinear

LEAST_IMAGES = 2
"""Of a task, with which it is computed beside others if it ever is."""

_TRIED: WeakKeyDictionary[BlockOwner, dict[tuple[int, Precision], Sizes]] = WeakKeyDictionary()
"""What was found out about an engram, by threads and precision, for as long as any version has it."""


class Step(NamedTuple):
    """One operation: where it reads, where it writes, and which values nobody needs after it."""

    operation: Operation
    given: tuple[int, ...]
    found: int
    over: tuple[int, ...]


class ClosurePlan:
    """Steps in order, from images (B, C, H, W) to some values; a value's place is a number."""

    def __init__(self, steps: Sequence[tuple[Operation, tuple[int, ...], int]], results: Sequence[int]) -> None:
        last = {place: number for number, (_, given, found) in enumerate(steps) for place in (*given, found)}
        for place in results:
            last[place] = len(steps)
        self._steps = [
            Step(operation, given, found, tuple(place for place, final in last.items() if final == number))
            for number, (operation, given, found) in enumerate(steps)
        ]
        self.results = tuple(results)
        """Places of what is found."""
        self._places = 1 + max((found for _, _, found in steps), default=0)
        self.operations = tuple(steps)
        """Each with the places that it reads, and the one that it writes; the images are at place 0."""

    def run(self, images: Tensor, done: int = 0) -> tuple[Tensor, ...]:
        """The results for images (B, C, H, W) float32 in [0, 1].

        Parameters
        ----------
        done
            Steps that are done already; what the last of them has found stands in place of the images.
        """
        values: list[Any] = [None] * self._places
        values[self._steps[done - 1].found if done else 0] = images
        for operation, given, found, over in self._steps[done:]:
            if len(given) == 1:  # as nearly all: there is nothing to gather
                values[found] = operation(values[given[0]])
            else:
                values[found] = operation(*[values[place] for place in given])
            for place in over:
                values[place] = None
        return tuple(values[place] for place in self.results)

    def first(self, images: Tensor, done: int) -> list[Tensor]:
        """What each of so many first steps finds."""
        values: list[Any] = [images, *[None] * (self._places - 1)]
        for operation, given, found, _ in self._steps[:done]:
            values[found] = operation(*[values[place] for place in given])
        return [values[step.found] for step in self._steps[:done]]


Run = Callable[[Tensor], tuple[Tensor, ...]]
"""From images (B, C, H, W) float32 in [0, 1], B one of an engine's sizes, to the results of a plan."""


class Engine(Protocol):
    """Way to run plans; the same plan and images give the same bytes every time in one environment."""

    precision: Precision
    """What the operations of its plans compute in."""
    eager: bool
    """Whether it computes by PyTorch's own operations, so that others of those may give the same bytes."""

    sizes: Sizes
    """Batch sizes in which an image has the same bytes as in the next one of `SHAPES`."""

    @property
    def of_candidates(self) -> Engine:
        """What a network is judged by that will learn on, for which nothing is to be set up."""

    def prepare(self, plan: ClosurePlan, owner: BlockOwner) -> Run:
        """What runs the plan of an owner, made once for each task and kept for as long as its engram is served."""


class PlanBuilder:
    """Builder of a plan over owners: it adds whatever steps a value needs.

    Parameters
    ----------
    operation
        Gives the operation of an owner's node; whoever builds several plans lets them share those.
    """

    def __init__(
        self, layout: Layout, owners: Mapping[str, BlockOwner], operation: Callable[[BlockOwner, Node], Operation]
    ) -> None:
        self._layout = layout
        self._owners = owners
        self._operation = operation
        self._steps: list[tuple[Operation, tuple[int, ...], int]] = []
        self._places: dict[tuple[str, str], int] = {}
        self._gathered: dict[tuple[tuple[int, ...], str], int] = {}
        self._count = 1

    def add(self, operation: Operation, given: tuple[int, ...]) -> int:
        """Add a step that reads these places; the place that it writes."""
        self._steps.append((operation, given, self._count))
        self._count += 1
        return self._count - 1

    def owner(self, owner: BlockOwner, nodes: Sequence[Node]) -> None:
        """Add some nodes of an owner, all that they read being there."""
        for node in nodes:
            if node.mixing:
                given: tuple[int, ...] = (self.read(owner, node.sources[0]),)
            else:
                given = tuple(self._places[owner.task, source] for source in node.sources)
            self._places[owner.task, node.name] = self.add(self._operation(owner, node), given)

    def read(self, owner: BlockOwner, source: str) -> int:
        """The place of what an owner reads at a node: what it reads of others, then its own."""
        if source == IMAGE:
            return 0
        return self.joined(reads_of(owner), source, self._places[owner.task, source])

    def joined(self, reads: Sequence[Read], source: str, own: int | None = None) -> int:
        """The place of what is read at a node, owner after owner."""
        node = self._layout.node(source)
        some = [read for read in reads if read.count(node.layer)]
        if not some:
            assert own is not None, f"nothing is read at {source}"
            return own
        chosen = [self._chosen(read, node) for read in some]
        given = [self._places[read.owner, source] for read in some]
        key = (tuple(given if own is None else [*given, own]), source)
        if own is None or key not in self._gathered:
            self._gathered[key] = self.add(Gathering(chosen), key[0])
        return self._gathered[key]

    def _chosen(self, read: Read, node: Node) -> Tensor | None:
        owner = self._owners[read.owner]
        if read.count(node.layer) == owner.units[node.layer]:
            return None
        return columns(read, node).to(owner.head.weight.device)

    def plan(self, results: Sequence[int]) -> ClosurePlan:
        """What was added so far, ending with the values of some places."""
        return ClosurePlan(self._steps, results)


class Planner:
    """Maker of plans for the frozen engrams of one network; what is made is kept.

    Parameters
    ----------
    owners
        By name, in the order of learning.
    engine
        What tasks are answered by.
    """

    def __init__(self, layout: Layout, owners: Mapping[str, BlockOwner], engine: Engine) -> None:
        self._layout = layout
        self._owners = owners
        self._engine = engine
        self._plans: dict[str, tuple[tuple[torch.device, int, int], ClosurePlan, Run]] = {}
        self._operations: dict[tuple[str, str, torch.device], Operation] = {}
        self._reading: tuple[Sequence[Read], torch.device, ClosurePlan, tuple[str, ...]] | None = None
        self._trunks: GroupedTrunks | None = None
        self._single_units: SingleUnitTrunks | None = None
        self._sizes: tuple[int, dict[str, Sizes]] = (0, {})
        # What kernels for many tasks round to 8 bits is not what those of one do.
        self._grouping = engine.eager and engine.precision == "fp32"

    def followed(self, owners: Mapping[str, BlockOwner], *, candidate: bool = False) -> Planner:
        """A planner for more owners, which has all that this one has made.

        Parameters
        ----------
        candidate
            Whether the last owner will learn on, so that nothing is kept of it.
        """
        engine = self._engine.of_candidates if candidate else self._engine
        other = Planner(self._layout, owners, engine)
        other._operations = dict(self._operations)
        if engine is self._engine:
            other._plans = dict(self._plans)
        return other

    def answering(self, task: str) -> Run:
        """What gives a task's features and logits."""
        return self._made(task)[1]

    def plan(self, task: str) -> ClosurePlan:
        """The plan that gives a task's features and logits."""
        return self._made(task)[0]

    def _made(self, task: str) -> tuple[ClosurePlan, Run]:
        owner = self._owners[task]
        head = owner.head
        weight, bias = head.weight, head.bias
        # A head may be rescaled after its network was first run: then the plan's copy is no longer the head's.
        key = (weight.device, weight._version, bias._version)
        made = self._plans.get(task)
        if made is None or made[0] != key:
            builder = self._builder(reads_of(owner))
            builder.owner(owner, self._layout.nodes)
            features = builder.read(owner, self._layout.features.name)
            logits = builder.add(RowwiseLinear(weight, bias), (features,))
            plan = builder.plan((features, logits))
            made = self._plans[task] = (key, plan, self._engine.prepare(plan, owner))
        return made[1:]

    def reading(self, reads: Sequence[Read]) -> tuple[ClosurePlan, tuple[str, ...]]:
        """The plan of what is read of some owners, and the names of the nodes it is read at; the last one is kept."""
        device = self._owners[reads[0].owner].head.weight.device
        if self._reading is None or self._reading[0] is not reads or self._reading[1] != device:
            builder = self._builder(reads)
            read = self._layout.read()
            names = [node.name for node in self._layout.nodes if node.name in read]
            names = [name for name in names if any(one.count(self._layout.node(name).layer) for one in reads)]
            plan = builder.plan([builder.joined(reads, name) for name in names])
            self._reading = (reads, device, plan, tuple(names))
        return self._reading[2:]

    def trunks(self) -> GroupedTrunks:
        """The trunks of the tasks that can be computed at once, which the owners' weights are copied for."""
        if self._trunks is None:
            owners = self._owners if self._grouping else {}
            found = GroupedTrunks.of(self._layout, owners, self._operation_of)
            found.prove(lambda task, images: self.plan(task).first(images, found.steps)[-1])
            self._trunks = found
        return self._trunks

    def single_units(self) -> SingleUnitTrunks:
        """The trunks of the tasks of one unit in each layer."""
        if self._single_units is None:
            owners = self._owners if self._grouping else {}
            found = SingleUnitTrunks.of(self._layout, owners, self._operation_of)
            found.prove(
                lambda task, images: self.plan(task).first(images, found.steps),
                lambda task, maps: self.plan(task).run(maps, found.steps),
                lambda task, images: self.answering(task)(images),
            )
            self._single_units = found
        return self._single_units

    def sizes(self, task: str) -> Sizes:
        """The batch sizes that a task is computed in: the engine's, and the half steps that `prepare` proved."""
        threads, found = self._sizes
        return found.get(task, self._engine.sizes) if threads == torch.get_num_threads() else self._engine.sizes

    def prepare(self) -> None:
        """Find out how those tasks are computed soonest that are not computed beside others, to the same bytes.

        Their weights are prepacked, and their half steps tried.
        """
        if not (self._engine.eager and any(node.operation == "conv" for node in self._layout.nodes)):
            return
        threads, found, began = torch.get_num_threads(), dict[str, Sizes](), time.monotonic()
        self._sizes = threads, found
        alone: list[BlockOwner] = []
        for task, owner in reversed(list(self._owners.items())):
            if time.monotonic() - began > MOST_SECONDS:
                break
            if not LEAST_WORK <= closure_of(owner, self._owners).total <= MOST_WORK:
                continue
            if not (self.trunks().takes(task, LEAST_IMAGES) or self.single_units().takes(task, LEAST_IMAGES)):
                alone.append(owner)
                found[task] = self._tried(owner, threads)
        began = time.monotonic()
        for owner in alone:
            if time.monotonic() - began > MOST_SECONDS:
                break
            for operation, _, _ in self.plan(owner.task).operations:
                if isinstance(operation, Convolution):
                    operation.prepack(self.sizes(owner.task))

    def _tried(self, owner: BlockOwner, threads: int) -> Sizes:
        """The sizes of an owner, whose weights and whatever they read are the same in every version."""
        key = threads, self._engine.precision
        tried = _TRIED.setdefault(owner, {})
        if key not in tried:
            layout = self._layout
            tried[key] = sizes(self.plan(owner.task).operations, (layout.channels, *layout.image_size))
        return tried[key]

    def _builder(self, reads: Sequence[Read]) -> PlanBuilder:
        """A builder that has all that is needed for what is read."""
        builder = PlanBuilder(self._layout, self._owners, self._operation_of)
        for name, nodes in needed(self._layout, reads, self._owners).items():
            builder.owner(self._owners[name], nodes)
        return builder

    def _operation_of(self, owner: BlockOwner, node: Node) -> Operation:
        key = (owner.task, node.name, owner.head.weight.device)
        if key not in self._operations:
            assert not owner.head.weight.requires_grad, "only what is frozen can be planned with"
            source = node.sources[0]
            size = self._layout.image_size if source == IMAGE else self._layout.node(source).size or (1, 1)
            self._operations[key] = operation_of(node, owner.block(node), self._engine.precision, size)
        return self._operations[key]
