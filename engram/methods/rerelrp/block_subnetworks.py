"""Sub-networks on blocks: each task's engram with all that it reads, computed in one pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

from engram.config.definition import Definition
from engram.context import LearnContext
from engram.data.examples import Examples
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.rerelrp.signatures import head_relevance
from engram.methods.rerelrp.subnetworks import SubnetworkPass, Subnetworks
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, candidate_units, capacity, raised
from engram.nn.network import Network
from engram.nn.serialization import dump_engram, load_engrams
from engram.training.learner import Learner
from engram.training.report import LearningReport

CPU = torch.device("cpu")


class BlockSubnetworks(Subnetworks):
    """A stack of engrams; the relevance of what a head reads is known without going back through the network."""

    def __init__(self, network: Network, device: torch.device = CPU) -> None:
        self.network = network.eval()
        self._device = device
        self._explainer = Explainer(network.stack)

    @classmethod
    def create(cls, definition: Definition) -> Self:
        return cls(Network(layout_of(definition)))

    @classmethod
    def restore(
        cls, definition: Definition, engrams: Sequence[bytes], kept: Sequence[bytes] | None, reuse: Self | None
    ) -> Self:
        layout = layout_of(definition)
        return cls(Network(layout, load_engrams(layout, engrams, () if reuse is None else reuse.network.stack)))

    def dump(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        return tuple(dump_engram(engram) for engram in self.network.stack), ()

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return tuple(TaskInfo(engram.task, engram.classes, dict(engram.units)) for engram in self.network.stack)

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self.network.to(device)
        self._explainer = Explainer(self.network.stack)

    def passes(self, explained: int) -> int:
        return 1

    @torch.no_grad()
    def forward(self, images: Tensor, explained: int = 0) -> SubnetworkPass:
        outputs = [(features.cpu(), logits.cpu()) for features, logits in self.network(images)]
        relevance = [
            head_relevance(features, engram.head.weight.cpu(), logits)
            for engram, (features, logits) in zip(self.network.stack[:explained], outputs, strict=False)
        ]
        features, heads = zip(*outputs, strict=True)
        return SubnetworkPass(features, heads, tuple(relevance))

    def newest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        forward = self.forward(images)
        return forward.features[-1], forward.heads[-1]

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainer.explain(image, owner, target, composite)

    def capacity(self, budget: Mapping[str, int]) -> list[LayerCapacity]:
        return capacity(self.network.layout, budget, self.network.stack)

    def raised(self, budget: Mapping[str, int], wanted: float | Mapping[str, int]) -> dict[str, int]:
        return raised(self.network.layout, budget, wanted)

    def admit(self, budget: Mapping[str, int]) -> None:
        candidate_units(self.network.layout, budget, self.network.stack)

    def learned(
        self, budget: Mapping[str, int], task: str, examples: Examples, context: LearnContext
    ) -> tuple[Self, LearningReport, Examples, Examples]:
        engram, report, train, held_out = Learner(self.network, budget, context).learn(task, examples)
        network = self.network.appended(engram.to(self.device))
        return type(self)(network, self.device), report, train, held_out
