"""Capacity: the budget of units of each layer, what tasks own of it, and what is free."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from engram.errors import CapacityExhausted, InvalidDefinition
from engram.nn.layout import Layout
from engram.nn.network import Engram

MOST_WEIGHTS = 2**28
"""1 GiB of weights, ten times the largest backbone at its plain width; learning takes four times that."""

LEAST_SHARE = 0.05
"""A new task needs at least this share of the units that it may try in a layer, or it is refused."""


@dataclass(frozen=True)
class LayerCapacity:
    """One layer: its budget of units, how many each task owns, how many are free."""

    layer: str
    units: int
    owned: dict[str, int]
    free: int

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def budget_of(layout: Layout, budget: float | Mapping[str, int]) -> dict[str, int]:
    """Units per layer for all tasks together.

    Raises
    ------
    InvalidDefinition
        for a layer that the backbone does not have, or a budget that no task fits in.
    """
    if isinstance(budget, Mapping):
        if not all(isinstance(units, int) for units in budget.values()):
            raise InvalidDefinition("the budget of a layer is a whole number of units")
        unknown = sorted(set(budget) - set(layout.layers))
        if unknown:
            raise InvalidDefinition(f"no such layer: {', '.join(unknown)}; there are {', '.join(layout.layers)}")
        whole = {layer: budget.get(layer, 8 * width) for layer, width in layout.widths.items()}
    else:
        if not isinstance(budget, int | float) or not math.isfinite(budget):
            raise InvalidDefinition("the budget must be a finite number")
        whole = {layer: math.ceil(width * budget) for layer, width in layout.widths.items()}
    for layer, units in whole.items():
        if units < least(layout.widths[layer]):
            raise InvalidDefinition(f"a budget of {units} in {layer} leaves no room for a single task")
    return whole


def check_weights(layout: Layout, units: Mapping[str, int]) -> None:
    """Refuse a network that is too wide to be held in memory.

    Raises
    ------
    InvalidDefinition
        for more than `MOST_WEIGHTS`; nothing of it was made.
    """
    mixing = (node for node in layout.nodes if node.mixing)
    weights = sum(layout.incoming(node, units) * units[node.layer] * node.kernel**2 for node in mixing)
    if weights > MOST_WEIGHTS:
        raise InvalidDefinition(f"this network would have {weights} weights; at most {MOST_WEIGHTS} are taken")


def least(width: int) -> int:
    """The fewest free units of a layer with which a task is still worth trying."""
    return max(1, math.ceil(LEAST_SHARE * width))


Owned = Mapping[str, Mapping[str, int]]
"""For each task, in the order of learning, the units that it owns in each layer."""


def capacity(layout: Layout, budget: Mapping[str, int], tasks: Sequence[Engram] | Owned) -> list[LayerCapacity]:
    """The capacity of every layer, in the order of the layout."""
    if not isinstance(tasks, Mapping):
        tasks = {engram.task: engram.units for engram in tasks}
    layers = []
    for layer in layout.layers:
        owned = {task: units[layer] for task, units in tasks.items()}
        layers.append(LayerCapacity(layer, budget[layer], owned, budget[layer] - sum(owned.values())))
    return layers


def candidate_units(layout: Layout, budget: Mapping[str, int], tasks: Sequence[Engram] | Owned) -> dict[str, int]:
    """Units that the next task may try in each layer: the layout's width, or as many as are free.

    Raises
    ------
    CapacityExhausted
        when some layer has too little left.
    """
    units = {}
    for layer in capacity(layout, budget, tasks):
        width = layout.widths[layer.layer]
        if layer.free < least(width):
            raise CapacityExhausted(
                f"layer {layer.layer} has {layer.free} of {layer.units} units left and a task needs at least "
                f"{least(width)}; raise the budget"
            )
        units[layer.layer] = min(width, layer.free)
    return units


def raised(layout: Layout, budget: Mapping[str, int], wanted: float | Mapping[str, int]) -> dict[str, int]:
    """A larger budget, from a multiple of one task's units, or from numbers for named layers (the others keep theirs).

    Raises
    ------
    InvalidDefinition
        for an unknown layer, or less than the budget there is.
    """
    named = {**budget, **wanted} if isinstance(wanted, Mapping) else wanted
    larger = budget_of(layout, named)
    for layer, units in larger.items():
        if units < budget[layer]:
            raise InvalidDefinition(f"layer {layer} has a budget of {budget[layer]}; it can only be raised")
    return larger


@dataclass(frozen=True)
class TaskInfo:
    """A learned task: its name, its labels in the order of its head, and the units it owns in each layer."""

    name: str
    classes: tuple[str, ...]
    units: dict[str, int] = field(default_factory=dict)
