"""Sub-networks of one conventional network whose relevant units are frozen, as ReReLRP publishes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from engram.checkpointing.tensors import content_hash
from engram.config.definition import Definition
from engram.config.rerelrp import RerelrpSettings
from engram.context import LearnContext
from engram.data.examples import Examples
from engram.errors import CapacityExhausted, DamagedSnapshot, InvalidDefinition
from engram.explain.explainer import Explainer, Heatmap
from engram.explain.unit_relevance import UnitRelevance
from engram.methods.rerelrp.freezing import Freezer
from engram.methods.rerelrp.subnetworks import SubnetworkPass, Subnetworks
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, least
from engram.nn.multihead import MultiHeadNetwork, Owners
from engram.nn.network import Engram
from engram.nn.serialization import dump_blocks, dump_engram, dump_owners, load_blocks, load_engram, load_owners
from engram.training.report import LearningReport

CPU = torch.device("cpu")


class FrozenSubnetworks(Subnetworks):
    """The units that each task kept, cut out of the shared network as an engram of its own.

    Learning goes on in the shared network; answering needs the sub-networks alone, each on an empty stack, and one
    pass through each of them. All their weights were frozen, so that none of them ever changes.

    Parameters
    ----------
    shared
        Without heads; None if it will only answer.
    owners
        Of the shared network's units.
    """

    def __init__(
        self,
        definition: Definition,
        shared: MultiHeadNetwork | None,
        owners: Owners,
        engrams: Sequence[Engram],
        device: torch.device = CPU,
    ) -> None:
        self.definition = definition
        self.shared = None if shared is None else shared.eval()
        self.owners = owners
        self.engrams = tuple(engrams)
        self._device = device
        self._ready()

    def _ready(self) -> None:
        """Forget all copies of the engrams; they are made again where the engrams now are."""
        self._relevance = [UnitRelevance(engram) for engram in self.engrams]
        self._explainers = [Explainer([engram]) for engram in self.engrams]

    @classmethod
    def create(cls, definition: Definition) -> Self:
        shared = _fresh(definition)
        return cls(definition, shared, shared.owners, ())

    @classmethod
    def restore(
        cls, definition: Definition, engrams: Sequence[bytes], kept: Sequence[bytes] | None, reuse: Self | None
    ) -> Self:
        if not engrams:
            return cls.create(definition)
        layout = layout_of(definition)
        by_hash = {} if reuse is None else {engram.content_hash: engram for engram in reuse.engrams}
        loaded = [by_hash.get(content_hash(data)) or load_engram(layout, data) for data in engrams[1:]]
        fresh = _fresh(definition)
        owners = load_owners(fresh, engrams[0])
        if kept is None:
            return cls(definition, None, owners, loaded)
        if len(kept) != 1:
            raise DamagedSnapshot("a model that can learn has one shared network")
        return cls(definition, load_blocks(fresh, owners, kept[0]), owners, loaded)

    def dump(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        if not self.engrams:
            return (), ()  # what the definition's seed makes
        engrams = tuple(dump_engram(engram) for engram in self.engrams)
        shared = () if self.shared is None else (dump_blocks(self.shared),)
        return (dump_owners(self.owners), *engrams), shared

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return tuple(
            TaskInfo(engram.task, engram.classes, self._owned(number)) for number, engram in enumerate(self.engrams, 1)
        )

    def _owned(self, task: int) -> dict[str, int]:
        return {layer: int((owner == task).sum()) for layer, owner in self.owners.items()}

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        if self.shared is not None:
            self.shared.to(device)
        for engram in self.engrams:
            engram.to(device)
        self._ready()

    def passes(self, explained: int) -> int:
        return len(self.engrams) + explained

    @torch.no_grad()
    def forward(self, images: Tensor, explained: int = 0) -> SubnetworkPass:
        seen = [_seen(engram, images) for engram in self.engrams]
        relevance = [unit_relevance(images) for unit_relevance in self._relevance[:explained]]
        features, heads = zip(*seen, strict=True)
        return SubnetworkPass(features, heads, tuple(relevance))

    @torch.no_grad()
    def newest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return _seen(self.engrams[-1], images)

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainers[owner].explain(image, 0, target, composite)

    def capacity(self, budget: Mapping[str, int]) -> list[LayerCapacity]:
        tasks = self.tasks
        return [
            LayerCapacity(layer, len(owner), {info.name: info.units[layer] for info in tasks}, int((owner == 0).sum()))
            for layer, owner in self.owners.items()
        ]

    def raised(self, budget: Mapping[str, int], wanted: float | Mapping[str, int]) -> dict[str, int]:
        raise InvalidDefinition(
            "the published form of rerelrp has a network of a fixed size, and so a budget that stays"
        )

    def admit(self, budget: Mapping[str, int]) -> None:
        # A layer may be full: later tasks read its frozen units. There must be room somewhere.
        needed = sum(map(least, layout_of(self.definition).widths.values()))
        free = sum(layer.free for layer in self.capacity(budget))
        if free < needed:
            raise CapacityExhausted(
                f"a task needs at least {needed} units and the network has {free} left; its size is fixed"
            )

    def learned(
        self, budget: Mapping[str, int], task: str, examples: Examples, context: LearnContext
    ) -> tuple[Self, LearningReport, Examples, Examples]:
        assert self.shared is not None, "this model was restored without its shared network, which learning needs"
        step = RerelrpSettings.model_validate(self.definition.settings).step
        freezer = Freezer(self.shared, step, context)
        shared, engram, report, train, held_out = freezer.learn(task, examples, number=len(self.engrams) + 1)
        grown = type(self)(self.definition, shared, shared.owners, (*self.engrams, engram), self.device)
        return grown, report, train, held_out


def _fresh(definition: Definition) -> MultiHeadNetwork:
    layout = layout_of(definition)
    return MultiHeadNetwork.create(layout, budget_of(layout, definition.budget), definition.seed)


def _seen(engram: Engram, images: Tensor) -> tuple[Tensor, Tensor]:
    joined = engram(images, {})
    return joined[engram.layout.features.name].cpu(), engram.logits(joined).cpu()
