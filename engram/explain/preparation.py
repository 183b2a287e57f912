"""Preparation of heatmaps: the steps in which relevance is propagated, for each engram of a stack."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from engram.explain.propagation import (
    AverageStep,
    FlattenStep,
    JoinStep,
    LayerStep,
    MaxPoolStep,
    RelevancePlan,
    RelevanceStep,
    SumStep,
)
from engram.explain.ruled import positive, ruled
from engram.explain.rules import composite_of
from engram.nn.blocks import ConvBlock, DenseBlock, GlobalAverageBlock
from engram.nn.closures.closure import closure_of
from engram.nn.layout import IMAGE, Layout, Node
from engram.nn.network import Engram
from engram.nn.reads import Read, columns

HEAD = "head"
"""In the place of a node's name, the head."""


def reach_of(stack: Sequence[Engram], owner: int) -> Mapping[str, Collection[str]]:
    """What the logits of one engram of a stack need: for each owner, the engram itself last, names of its nodes."""
    engram = stack[owner]
    if engram.reads is None:
        return {one.task: [node.name for node in one.layout.nodes] for one in stack[: owner + 1]}
    return closure_of(engram, {one.task: one for one in stack}).nodes


def linear_names(layout: Layout, meant: Callable[[Node], bool], prefix: str = "") -> list[str]:
    """Names of an engram's linear modules at the nodes that are meant."""
    kinds = {"conv": "conv", "dense": "linear"}
    return [
        f"{prefix}blocks.{node.name}.{kinds[node.operation]}" for node in layout.nodes if node.mixing and meant(node)
    ]


def reads_image(node: Node) -> bool:
    """Whether it is the image itself that a node reads."""
    return node.sources == (IMAGE,)


def feeds_sum(node: Node) -> bool:
    """Whether what a node puts out goes unrectified into a residual sum."""
    return not node.rectify


class RelevancePlanner:
    """Maker of plans by one composite that shares relevance, for the engrams of a stack; what is made is kept.

    Parameters
    ----------
    private
        Gives the private copy of an engram, which is only read.
    """

    def __init__(self, stack: Sequence[Engram], composite: str, private: Callable[[Engram], Engram]) -> None:
        self._stack = tuple(stack)
        self._composite = composite
        self._private = private
        self._plans: dict[int, RelevancePlan] = {}
        self._steps: dict[str, dict[str, RelevanceStep]] = {}
        """For each owner, by node, so that plans share those of whom they read."""
        self._lock = threading.Lock()

    def plan(self, owner: int) -> RelevancePlan:
        """The plan of one engram's logits; raises UnknownComposite."""
        with self._lock:
            if owner not in self._plans:
                self._plans[owner] = self._planned(owner)
            return self._plans[owner]

    def _planned(self, owner: int) -> RelevancePlan:
        owners = {engram.task: engram for engram in self._stack}
        drafted = _Drafted(owners)
        for task, nodes in reach_of(self._stack, owner).items():
            drafted.add(owners[task], nodes, self._steps_of(owners[task]))
        engram = self._stack[owner]
        features = drafted.read(engram, engram.layout.features)
        drafted.plan.add(self._steps_of(engram)[HEAD], (features,))
        return drafted.plan

    def _steps_of(self, engram: Engram) -> dict[str, RelevanceStep]:
        if engram.task not in self._steps:
            self._steps[engram.task] = _steps(self._private(engram), self._composite)
        return self._steps[engram.task]


class _Drafted:
    """A plan to which owners are added in the order of learning."""

    def __init__(self, owners: Mapping[str, Engram]) -> None:
        self.plan = RelevancePlan()
        self._owners = owners
        self._own: dict[tuple[str, str], int] = {}
        self._read: dict[tuple[str, str], int] = {}
        self._before: dict[str, int] = {}
        """For each node all owners so far, side by side, where each reads all before it."""

    def add(self, engram: Engram, nodes: Collection[str], steps: Mapping[str, RelevanceStep]) -> None:
        """Add some nodes of an owner, all that they read of others being there."""
        for node in engram.layout.nodes:
            if node.name not in nodes:
                continue
            if not node.mixing:
                given = tuple(self._own[engram.task, source] for source in node.sources)
            elif reads_image(node):
                given = (0,) if node.operation == "conv" else (self.plan.add(FlattenStep(), (0,)),)
            else:
                given = (self.read(engram, engram.layout.node(node.sources[0])),)
            self._own[engram.task, node.name] = self.plan.add(steps[node.name], given)
        if engram.reads is None:
            self._before = {name: self.read(engram, engram.layout.node(name)) for name in sorted(engram.layout.read())}

    def read(self, engram: Engram, node: Node) -> int:
        """The place of what an owner reads at a node: what it reads of others, then its own."""
        key = (engram.task, node.name)
        if key not in self._read:
            own = self._own[key]
            if engram.reads is None:
                before = self._before.get(node.name)
                self._read[key] = own if before is None else self.plan.add(JoinStep([None, None]), (before, own))
            else:
                some = [read for read in engram.reads if read.count(node.layer)]
                given = [self._own[read.owner, node.name] for read in some]
                chosen = [self._chosen(read, node) for read in some]
                self._read[key] = self.plan.add(JoinStep([*chosen, None]), (*given, own)) if some else own
        return self._read[key]

    def _chosen(self, read: Read, node: Node) -> Any:
        return columns(read, node).to(self._owners[read.owner].head.weight.device)


def _steps(private: Engram, composite: str) -> dict[str, RelevanceStep]:
    """A step for each node of a private copy, and for its head."""
    layout = private.layout
    rules = composite_of(composite, linear_names(layout, reads_image), linear_names(layout, feeds_sum))
    assert rules is not None, "the composites that share relevance are zennit's"
    found: dict[str, Any] = {}
    hooks = {name: rules.module_map(found, name, module) for name, module in private.named_modules()}
    steps = {node.name: _step(private, node, hooks) for node in layout.nodes}
    head = ruled(private.head, hooks[HEAD], positive=positive(layout, layout.features))
    return {**steps, HEAD: LayerStep(head, rectify=False)}


def _step(private: Engram, node: Node, hooks: Mapping[str, Any]) -> RelevanceStep:
    block, layout = private.block(node), private.layout
    if isinstance(block, ConvBlock | DenseBlock):
        name, module = ("conv", block.conv) if isinstance(block, ConvBlock) else ("linear", block.linear)
        source = node.sources[0]
        layer = ruled(
            module,
            hooks[f"blocks.{node.name}.{name}"],
            positive=source != IMAGE and positive(layout, layout.node(source)),
        )
        return LayerStep(layer, rectify=node.rectify)
    if isinstance(block, GlobalAverageBlock):
        hook = hooks[f"blocks.{node.name}.pool"]
        return AverageStep(lambda relevance, mean: hook.gradient_mapper(relevance, [mean]))
    match node.operation:
        case "max_pool":
            return MaxPoolStep(node)
        case "flatten":
            return FlattenStep()
        case _:
            return SumStep()
