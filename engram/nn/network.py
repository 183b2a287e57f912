"""Engrams, and the network that computes a stack of them in one pass."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from engram.nn.blocks import AddBlock, Block, ConvBlock, MaxPoolBlock, build_block, cut_block
from engram.nn.closures.closure import Closure, closure_of
from engram.nn.closures.engines import FIRST
from engram.nn.closures.grouped import LEAST_GROUPS
from engram.nn.closures.plan import Engine, Planner
from engram.nn.closures.sessions import SessionRun
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.reads import Read, cut, read_units
from engram.nn.shapes import SHAPES, Rows, in_shapes

Joined = Mapping[str, Tensor]
"""For each node that is read: its values of all owners so far, or of those units that an engram reads, side by side
along dimension 1."""


def pixels(images: Tensor) -> Tensor:
    """(B, C, H, W) uint8 -> float32 in [0, 1]."""
    return images.to(torch.float32) / 255.0


def channels_last(values: Tensor) -> Tensor:
    """Maps (B, C, H, W) with the channels of a place side by side in memory, which layers keep; all else as it is.

    Of maps with one channel nothing is moved: what layers go by are the strides, which PyTorch would leave as they are.
    """
    if values.ndim != 4:
        return values
    count, width = values.shape[1], values.shape[3]
    found = values.contiguous(memory_format=torch.channels_last)
    return found.as_strided(values.shape, (values.shape[2] * width * count, 1, width * count, count))


class Engram(nn.Module):
    """The part of a network that one task owns: its blocks, one for each node of the layout, and its head.

    Parameters
    ----------
    task, classes
        The task's name and its labels, in the order of the head's outputs.
    earlier
        Units of earlier owners that are read, in each layer: all of them, or as many as `reads` names.
    units
        Units of this owner in each layer.
    reads
        Which units of which owners are read; None where all of all earlier ones are.
    """

    def __init__(
        self,
        layout: Layout,
        task: str,
        classes: Sequence[str],
        earlier: Mapping[str, int],
        units: Mapping[str, int],
        reads: Sequence[Read] | None = None,
    ) -> None:
        super().__init__()
        self.reads = None if reads is None else tuple(reads)
        assert reads is None or dict(earlier) == read_units(layout.layers, reads), "what is read is what was counted"
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

    @classmethod
    def reading(
        cls, layout: Layout, task: str, classes: Sequence[str], reads: Sequence[Read], units: Mapping[str, int]
    ) -> Engram:
        """An engram that reads these units of earlier owners and no others."""
        return cls(layout, task, classes, read_units(layout.layers, reads), units, reads)

    @property
    def reach(self) -> dict[str, int]:
        """Units in each layer that this engram reads: earlier ones and its own."""
        return {layer: self.earlier[layer] + self.units[layer] for layer in self.layout.layers}

    def block(self, node: Node) -> Block:
        return cast(Block, self.blocks[node.name])

    def forward(
        self,
        images: Tensor,
        joined: Joined,
        watch: dict[str, Tensor] | None = None,
        nodes: Collection[str] | None = None,
        *,
        fused: bool = False,
    ) -> dict[str, Tensor]:
        """Compute this owner's units from the prefix and append them to it.

        Parameters
        ----------
        images
            (B, C, H, W) float32 in [0, 1].
        joined
            What is read of the earlier owners; without a node at which nothing is.
        watch
            If given, receives this owner's own output of every node.
        nodes
            Names of the nodes that are computed; by default all.
        fused
            Whether, in training, maps are normalised once they are pooled, which rounds otherwise.
        """
        own: dict[str, Tensor] = {} if watch is None else watch
        longer: dict[str, Tensor] = {IMAGE: images}
        read = self.layout.read()
        pooled = self.layout.pooled() if watch is None and self.training else frozenset[str]()
        for node in self.layout.nodes:
            if nodes is None or node.name in nodes:
                self._compute(node, own, longer, joined, read, pooled, fused=fused)
        del longer[IMAGE]
        return longer

    def _compute(
        self,
        node: Node,
        own: dict[str, Tensor],
        longer: dict[str, Tensor],
        joined: Joined,
        read: Collection[str],
        pooled: Collection[str],
        *,
        fused: bool = False,
    ) -> None:
        """Add a node's values to the owner's, and to what is read; `pooled` ones are rectified by what reads them."""
        block = self.block(node)
        if node.name in pooled and isinstance(block, ConvBlock):
            make = block.conv if fused else block.normalised
            own[node.name] = make(longer[node.sources[0]])  # (B, own units, H, W)
        elif node.mixing:
            own[node.name] = block(longer[node.sources[0]])  # (B, own units, ...)
        elif node.sources[0] in pooled and isinstance(block, MaxPoolBlock):
            whole, conv = own[node.sources[0]], self.block(self.layout.node(node.sources[0]))
            norm = conv.norm if fused and isinstance(conv, ConvBlock) else None
            own[node.name] = block.rectified(whole) if norm is None else block.normalised(whole, norm)
        elif isinstance(block, AddBlock):
            own[node.name] = block(own[node.sources[0]], own[node.sources[1]])  # (B, own units, H, W)
        else:
            own[node.name] = block(own[node.sources[0]])  # (B, own units, ...)
        if node.name in read:
            before = joined.get(node.name)
            after = own[node.name] if before is None else torch.cat([before, own[node.name]], 1)
            longer[node.name] = after  # (B, units read and own units, ...)

    def features(self, images: Tensor, joined: Joined) -> Tensor:
        """What the head reads, (B, values), as `forward` gives it; no map is kept for longer than it is needed.

        Parameters
        ----------
        images, joined
            As for `forward`.
        """
        own: dict[str, Tensor] = {}
        longer: dict[str, Tensor] = {IMAGE: images}
        read, pooled = self.layout.read(), self.layout.pooled()
        for node, over in zip(self.layout.nodes, self.layout.over(), strict=True):
            self._compute(node, own, longer, joined, read, pooled)
            for name in over:
                own.pop(name, None)
                longer.pop(name, None)
        return longer[self.layout.features.name]

    def answer(self, images: Tensor, joined: Joined) -> Tensor:
        """(B, classes): the head's logits, as `features` computes them."""
        return cast(Tensor, self.head(self.features(images, joined)))

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

    def frozen_copy(self) -> Engram:
        """A frozen copy, which shares nothing with this engram but its layout."""
        return copy.deepcopy(self, {id(self.layout): self.layout}).freeze()

    @torch.no_grad()
    def narrowed(self, keep: Mapping[str, Tensor], earlier: Mapping[str, Tensor] | None = None) -> Engram:
        """A new engram with only the units `keep` names, as int64 indices into this engram's own units per layer.

        The other weights stay as they are; dropped units leave no trace in any tensor.

        Parameters
        ----------
        earlier
            The same for what is read of earlier owners, for each layer rising indices into all of it; by default all.
        """
        layers = self.layout.layers
        if earlier is None:
            earlier = {layer: torch.arange(self.earlier[layer]) for layer in layers}
        assert self.reads is not None or all(len(earlier[layer]) == self.earlier[layer] for layer in layers), (
            "an engram that reads everything before it goes on doing so"
        )
        narrow = Engram(
            self.layout,
            self.task,
            self.classes,
            {layer: len(earlier[layer]) for layer in layers},
            {layer: len(keep[layer]) for layer in layers},
            None if self.reads is None else cut(self.reads, earlier),
        )
        reach = {layer: torch.cat([earlier[layer], self.earlier[layer] + keep[layer]]) for layer in layers}
        for node in self.layout.nodes:
            if node.mixing:
                columns = self._columns(node, reach)
                narrow.blocks[node.name] = cut_block(node, self.block(node), keep[node.layer], columns)
        features = _values(self.layout.features, reach)
        narrow.head.weight.copy_(self.head.weight[:, features])
        narrow.head.bias.copy_(self.head.bias)
        return narrow.train(self.training)

    def _columns(self, node: Node, reach: Mapping[str, Tensor]) -> Tensor:
        (source,) = node.sources
        if source == IMAGE:
            return torch.arange(self.layout.incoming(node, self.reach))
        return _values(self.layout.node(source), reach)


def _values(origin: Node, units: Mapping[str, Tensor]) -> Tensor:
    """Indices of the values of some units into all that is read of a node."""
    within = torch.arange(origin.per_unit)
    return (units[origin.layer][:, None] * origin.per_unit + within).flatten()  # (units x per_unit,)


class Network(nn.Module):
    """A stack of engrams, each reading some of those before it; appending is the only change there is.

    Parameters
    ----------
    engrams
        In the order of learning. Of engrams that say what they read some may be missing, if no other reads them.
    owned
        Units of all owners together in each layer, where some are missing.
    engine
        What those are answered by that say what they read.
    """

    def __init__(
        self,
        layout: Layout,
        engrams: Sequence[Engram] = (),
        owned: Mapping[str, int] | None = None,
        engine: Engine = FIRST,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.engrams = nn.ModuleList(engrams)
        self._owned = None if owned is None else dict(owned)
        self._owners = {engram.task: engram for engram in engrams}
        self.engine = engine
        self._planner = Planner(layout, self._owners, engine)
        self._closures: dict[str, Closure] = {}

    @property
    def stack(self) -> tuple[Engram, ...]:
        return tuple(cast(Engram, engram) for engram in self.engrams)

    @property
    def owned(self) -> dict[str, int]:
        """Units of all owners together, in each layer."""
        if self._owned is not None:
            return dict(self._owned)
        return {layer: sum(engram.units[layer] for engram in self.stack) for layer in self.layout.layers}

    def appended(self, engram: Engram, *, candidate: bool = False) -> Network:
        """A new network that shares this one's engrams and ends with another.

        Parameters
        ----------
        candidate
            Whether that will learn on: then it is answered by what the engine judges such networks by.
        """
        if engram.reads is None:
            assert engram.earlier == self.owned, "an engram fits only on the stack that it was learned on"
        else:
            assert all(read.owner in self._owners for read in engram.reads), "what is read has to be there"
        owned = self._owned and {layer: units + engram.units[layer] for layer, units in self._owned.items()}
        engine = self.engine.of_candidates if candidate else self.engine
        other = Network(self.layout, [*self.stack, engram], owned, engine)
        other._planner = self._planner.followed(other._owners, candidate=candidate)
        other._closures = dict(self._closures)
        return other

    def prefix(self, images: Tensor) -> Joined:
        """Everything that there is to be read, for (B, C, H, W) float32 images."""
        joined: Joined = {}
        for engram in self.stack:
            joined = engram(images, joined)
        return joined

    def joined(self, engram: Engram, images: Tensor) -> Joined:
        """What an engram, perhaps none of this network, reads of this network's engrams."""
        if engram.reads is None:
            return self.prefix(images)
        if not engram.reads:
            return {}
        plan, names = self._planner.reading(engram.reads)
        with torch.no_grad():
            return dict(zip(names, [value.float() for value in plan.run(images)], strict=True))

    def closure(self, task: str) -> Closure:
        """What the answer of a task needs; its engram says what it reads."""
        if task not in self._closures:
            self._closures[task] = closure_of(self._owners[task], self._owners)
        return self._closures[task]

    def closure_with(self, engram: Engram) -> Closure:
        """What the answer of an engram would need if it were appended."""
        return closure_of(engram, self._owners)

    def answer(self, task: str, images: Tensor, rows: Rows | None = None) -> tuple[Tensor, Tensor]:
        """The features (B, F_task) and the logits (B, classes) of one task, of which nothing but the closure is
        computed.

        An image's are the same bytes whatever its neighbours and its row, in batches that are padded to one shape.

        Parameters
        ----------
        images
            (B, C, H, W) float32 in [0, 1], in any number: they are computed in `SHAPES`, or after `prepare` in more
            sizes that give the same bytes.
        rows
            Which of the images; by default all.
        """
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self.answer(task, images, rows)
        run, most = self._planner.answering(task), len(images) if rows is None else len(rows)
        if isinstance(run, SessionRun) and most <= SHAPES[-1]:  # which takes any number, and no copies of images
            features, logits = run(images, rows)
        else:
            sizes = self._planner.sizes(task) if images.device.type == "cpu" else SHAPES
            features, logits = in_shapes(images, run, rows, sizes)
        return features, logits

    def prepare(self) -> None:
        """Find out how the tasks are answered soonest, to the same bytes; a service does so before it answers."""
        if next(self.parameters(), torch.empty(0)).device.type == "cpu":
            self._planner.prepare()

    def answers(self, asked: Mapping[str, Rows], images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What `answer` gives, to the byte, of those tasks that are sooner computed at once; of the others nothing.

        Parameters
        ----------
        asked
            For each task the rows of the images (B, C, H, W) that it is asked about.
        """
        if images.device.type != "cpu" or len(asked) < LEAST_GROUPS:
            return {}
        with torch.no_grad():
            found: dict[str, tuple[Tensor, Tensor]] = {}
            for trunks in (self._planner.trunks(), self._planner.single_units()):
                for task, maps in trunks.maps(images, asked).items():
                    features, logits = self._planner.plan(task).run(maps, trunks.steps)
                    found[task] = features, logits
        return found

    def forward(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For every owner its prefix features (B, F_owner) and its head's logits (B, classes).

        One pass where each engram reads all before it; where they say what they read, an answer of each.
        """
        if any(engram.reads is not None for engram in self.stack):
            return [self.answer(engram.task, images) for engram in self.stack]
        joined: Joined = {}
        outputs = []
        for engram in self.stack:
            joined = engram(images, joined)
            outputs.append((joined[self.layout.features.name], engram.logits(joined)))
        return outputs
