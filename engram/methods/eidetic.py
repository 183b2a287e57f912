"""EideticNet on blocks, the default: every task an engram that nothing later can touch.

After EideticNet (train to a plateau, score, prune within a tolerance, recover, freeze), with blocks in the place
of masks: what a task owns is computed by kernels of its own, from its predecessors' units and its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from engram.answers import Observation, TaskInfo
from engram.backbones import layout_of
from engram.capacity import LayerCapacity, budget_of, candidate_units, capacity, raised
from engram.commons import Commons
from engram.data import Examples
from engram.definition import Definition
from engram.learning import Learner
from engram.methods.method import Method, Stored, expect_recognised
from engram.network import Network, pixels
from engram.options import LearnOptions
from engram.progress import Reporter
from engram.recogniser import Recogniser
from engram.recognition import Seen, teach
from engram.relevance import Explainer, Heatmap
from engram.report import LearningReport
from engram.sums import PackedSums

if TYPE_CHECKING:
    from engram.training import OptimiserFactory


class Eidetic(Method):
    """A stack of engrams with a recogniser over them; every answer of a given task is exact for ever."""

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        network: Network,
        commons: Commons,
        recogniser: Recogniser,
        sums: tuple[PackedSums, ...] | None,
    ) -> None:
        super().__init__(definition, budget)
        self.network = network.eval()
        self.commons = commons.eval()
        self.recogniser = recogniser
        self.sums = sums
        self._explainer = Explainer(network.stack)

    @classmethod
    def create(cls, definition: Definition) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        commons = Commons(definition)
        budget = budget_of(layout, definition.budget)
        return cls(definition, budget, Network(layout), commons, Recogniser.empty(commons.features), ())

    @classmethod
    def restore(
        cls,
        definition: Definition,
        engrams: Sequence[bytes],
        recogniser: bytes,
        kept: Sequence[bytes] | None,
        budget: Mapping[str, int],
        reuse: Self | None = None,
    ) -> Self:
        from engram import files

        layout = layout_of(definition)
        commons, stack = files.load_stack(definition, layout, engrams, () if reuse is None else reuse.network.stack)
        known = files.load_recogniser(recogniser)
        files.check_readings(known, [engram.task for engram in stack])
        sums = None if kept is None else tuple(files.load_sums(piece) for piece in kept)
        return cls(definition, budget, Network(layout, stack), commons, known, sums)

    def dump(self) -> Stored:
        from engram import files

        assert self.sums is not None, "a model restored without its sums cannot be written again"
        engrams = (files.dump_commons(self.commons), *(files.dump_engram(engram) for engram in self.network.stack))
        return Stored(engrams, files.dump_recogniser(self.recogniser), tuple(map(files.dump_sums, self.sums)))

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return tuple(TaskInfo(engram.task, engram.classes, dict(engram.units)) for engram in self.network.stack)

    @property
    def exact(self) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return self.commons.filters.weight.device

    def to(self, device: torch.device | str) -> None:
        self.network.to(device)
        self.commons.to(device)
        self._explainer = Explainer(self.network.stack)

    def admit(self, task: str) -> None:
        super().admit(task)
        candidate_units(self.network.layout, self.budget, self.network.stack)

    def learn(
        self,
        task: str,
        examples: Examples,
        options: LearnOptions,
        seed: int,
        reporter: Reporter,
        optimiser: OptimiserFactory | None = None,
    ) -> LearningReport:
        assert self.sums is not None, "this model was restored without its sums, which learning needs"
        learner = Learner(self.network, self.budget, seed, options, reporter, self.device, optimiser)
        engram, report, train, held_out = learner.learn(task, examples)
        network = self.network.appended(engram.to(self.device)).eval()
        with report.timed("recognising"):
            taught = teach(
                self.commons,
                self.recogniser,
                self.sums,
                lambda images: _see(network, images),
                task,
                train,
                held_out,
                reporter,
                self.device,
            )
        report.recognised, report.answered = taught.recognised, taught.answered
        expect_recognised(report, options)
        self.network = network
        self.recogniser, self.sums = taught.recogniser, (*self.sums, taught.sums)
        self._explainer = Explainer(network.stack)
        return report

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        seen = _see(self.network, given)
        scores = self.recogniser.class_scores(self.commons(given).cpu())  # (B, classes of all tasks)
        distances = self.recogniser.distances(seen.features)  # (B, T)
        return Observation(
            self.tasks,
            tuple(seen.heads),
            torch.stack([reading.temperature for reading in self.recogniser.readings]),
            self.recogniser.log_probabilities(scores, distances),
            self.recogniser.p_values(distances),
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainer.explain(image, owner, target, composite)

    def capacity(self) -> list[LayerCapacity]:
        return capacity(self.network.layout, self.budget, self.network.stack)

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        self.budget = raised(self.network.layout, self.budget, budget)


@torch.no_grad()
def _see(network: Network, images: Tensor) -> Seen:
    outputs = network(images)
    return Seen([features.cpu() for features, _ in outputs], [logits.cpu() for _, logits in outputs])
