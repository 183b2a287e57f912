"""The interface of sub-networks, one per task, from which relevance signatures are taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.config.definition import Definition
from engram.context import LearnContext
from engram.data.examples import Examples
from engram.explain.explainer import Heatmap
from engram.nn.capacity import LayerCapacity, TaskInfo
from engram.training.report import LearningReport


@dataclass(frozen=True)
class SubnetworkPass:
    """Features, logits and relevance of B images in the sub-networks, on the CPU.

    Parameters
    ----------
    features, heads
        For each task its features (B, F_t) and logits (B, classes).
    relevance
        For the first tasks, as many as were asked for: (B, units), how much each unit of the task's sub-network spoke
        for what its head answers; normalised for each image and layer.
    """

    features: tuple[Tensor, ...]
    heads: tuple[Tensor, ...]
    relevance: tuple[Tensor, ...]


class Subnetworks(ABC):
    """One sub-network for each task. `learned` gives new ones; nothing changes in place but the device."""

    @classmethod
    @abstractmethod
    def create(cls, definition: Definition) -> Self:
        """Those of no task; raises InvalidDefinition."""

    @classmethod
    @abstractmethod
    def restore(
        cls, definition: Definition, engrams: Sequence[bytes], kept: Sequence[bytes] | None, reuse: Self | None
    ) -> Self:
        """The inverse of `dump`, with `kept` None if they will only answer; raises DamagedSnapshot, UnsupportedFormat.

        Parameters
        ----------
        reuse
            Others, with which equal parts may be shared.
        """

    @abstractmethod
    def dump(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """What answering needs, and what only learning needs."""

    @property
    @abstractmethod
    def tasks(self) -> tuple[TaskInfo, ...]:
        """The learned tasks, oldest first."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where they compute."""

    @abstractmethod
    def to(self, device: torch.device | str) -> None:
        """Move everything to a device, in place."""

    @abstractmethod
    def passes(self, explained: int) -> int:
        """How often `forward` sends an image through a network."""

    @abstractmethod
    def forward(self, images: Tensor, explained: int = 0) -> SubnetworkPass:
        """See images (B, C, H, W) float32 in [0, 1], with the relevance of the first `explained` tasks."""

    @abstractmethod
    def newest(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits of the newest task alone."""

    @abstractmethod
    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        """As `Method.explain`."""

    @abstractmethod
    def capacity(self, budget: Mapping[str, int]) -> list[LayerCapacity]:
        """Budget, owned and free units of each layer."""

    @abstractmethod
    def raised(self, budget: Mapping[str, int], wanted: float | Mapping[str, int]) -> dict[str, int]:
        """The larger budget; raises InvalidDefinition."""

    @abstractmethod
    def admit(self, budget: Mapping[str, int]) -> None:
        """Raise CapacityExhausted if there is no room for another task."""

    @abstractmethod
    def learned(
        self, budget: Mapping[str, int], task: str, examples: Examples, context: LearnContext
    ) -> tuple[Self, LearningReport, Examples, Examples]:
        """Those of one task more, the report so far, the images it was learned from and those it was judged by.

        Raises
        ------
        ExamplesError, CapacityExhausted, Cancelled, AccuracyTooLow
        """
