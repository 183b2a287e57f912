"""EideticNet on blocks: every task an engram that later tasks cannot change.

After EideticNet (train to a plateau, score, prune within a tolerance, recover, freeze), with blocks in the place
of masks: what a task owns is computed by kernels of its own, from its predecessors' units and its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.config.eidetic import EideticSettings
from engram.context import LearnContext
from engram.data.class_balance import class_weights
from engram.data.examples import Examples
from engram.errors import DamagedSnapshot
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.base import RecognisingMethod, StoredModel, expect_accurate, expect_recognised
from engram.methods.eidetic.commons_head import attach
from engram.methods.eidetic.router import dump_images, load_images, trained
from engram.methods.eidetic.router import scores as routing_scores
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, candidate_units, capacity, raised
from engram.nn.network import Engram, Network, pixels
from engram.nn.serialization import dump_engram, load_engram, load_engrams
from engram.recognition.predictions import Observation
from engram.recognition.state import RecogniserState
from engram.recognition.training import ForwardPass, GatheredStatistics, gather, seeing_in_parts
from engram.training.learner import Learner
from engram.training.report import LearningReport


class Eidetic(RecognisingMethod):
    """A stack of engrams with a recogniser over them; every answer of a given task is exact for ever.

    With the retention `data`, the tasks' images are kept, and the router that is trained on them recognises the task.
    """

    retentions: ClassVar[frozenset[str]] = frozenset({"none", "data"})

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        network: Network,
        state: RecogniserState,
        router: Engram | None = None,
        images: tuple[tuple[str, Examples], ...] = (),
    ) -> None:
        super().__init__(definition, budget, state)
        self.router = router
        self.images = images
        self.settings = EideticSettings.model_validate(definition.settings)
        self.network = network.eval()
        self._explainer = Explainer(network.stack, self.commons)

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        budget = budget_of(layout, definition.budget)
        parts = EideticSettings.model_validate(definition.settings).recognise_by
        return cls(definition, budget, Network(layout), RecogniserState.create(definition, parts))

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
        layout, routed = layout_of(definition), definition.retention == "data" and len(engrams) > 2
        router = load_engram(layout, engrams[-1]) if routed else None
        engrams = engrams[:-1] if routed else engrams
        if not engrams:
            raise DamagedSnapshot("a model has at least its commons")
        stack = load_engrams(layout, engrams[1:], () if reuse is None else reuse.network.stack)
        count = 0 if kept is None else len(kept) // 2 if definition.retention == "data" else len(kept)
        state = RecogniserState.load(definition, engrams[0], recogniser, None if kept is None else kept[:count])
        state.check([engram.task for engram in stack])
        images = tuple(map(load_images, (kept or ())[count:]))
        return cls(definition, budget, Network(layout, stack), state, router, images)

    def dump(self) -> StoredModel:
        commons, recogniser, sums = self.state.dump()
        stack = self.network.stack if self.router is None else (*self.network.stack, self.router)
        engrams = (commons, *(dump_engram(engram) for engram in stack))
        return StoredModel(engrams, recogniser, (*sums, *(dump_images(*one) for one in self.images)))

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return tuple(TaskInfo(engram.task, engram.classes, dict(engram.units)) for engram in self.network.stack)

    @property
    def exact(self) -> bool:
        return True

    def to(self, device: torch.device | str) -> None:
        self.state.to(device)
        self.network.to(device)
        if self.router is not None:
            self.router.to(device)
        self._explainer = Explainer(self.network.stack, self.commons)

    def admit(self, task: str) -> None:
        super().admit(task)
        candidate_units(self.network.layout, self.budget, self.network.stack)

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        self.state.required_sums()  # before any work is done in vain
        options, reporter = context.options, context.reporter
        engram, report, train, held_out = Learner(self.network, self.budget, context).learn(task, examples)
        with report.timed("recognising"):
            state = replace(self.state, commons=self.commons.fitted(train.images, reporter).eval())
            network = self.network.appended(engram.to(self.device)).eval()
            see = seeing_in_parts(partial(_see, network), network.layout, network.owned)
            gathered = gather(state.commons, see, train, held_out, reporter, self.device)
            if self.settings.read_commons:
                gathered = _reading(engram, gathered, train, held_out, context)
            chained = "chain" in self.settings.recognise_by
            update = state.update(task, see, train, held_out, context, gathered, chained=chained)
        report.recognised, report.answered = update.recognised, update.answered
        report.route(update.given, update.tasks)
        report.novelty = update.novelty
        report.judge(update.hits, held_out)
        expect_accurate(report, options)
        images, router = self.images, None
        if self.definition.retention == "data":
            images = (*images, (task, replace(train, held_out=held_out)))
            if len(images) > 1:  # with one task there is nothing to route
                with report.timed("recognising"):
                    routed = trained(network, self.budget, images, context)
                router = routed.engram
                report.details["recognised_by_router"] = {
                    name: float(right.double().mean()) for (name, _), right in zip(images, routed.right, strict=True)
                }
                report.recognised = float(routed.right[-1].double().mean())
                report.answered = float((routed.right[-1] & update.hits).double().mean())
                report.route(routed.given[-1], update.tasks)
        expect_recognised(report, options)
        self.network, self.state, self.router, self.images = network, update.state, router, images
        self._explainer = Explainer(network.stack, self.commons)
        return report

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        common = self.commons(given)  # (B, F)
        seen = _see(self.network, given, common)
        verdict = self.recogniser.assess(seen.features, common.cpu(), chained=True)
        log_tasks = verdict.log_tasks
        if self.router is not None:
            log_tasks = torch.log_softmax(routing_scores(self.network, self.router, images, self.device), 1)
        return Observation(
            self.tasks,
            tuple(seen.heads),
            self.state.temperatures,
            log_tasks,
            verdict.p_values,
            passes=1 if self.router is None else 2,
            levels=verdict.levels,
            vouched=verdict.vouched,
            balances=self.recogniser.balances,
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainer.explain(image, owner, target, composite)

    def capacity(self) -> list[LayerCapacity]:
        return capacity(self.network.layout, self.budget, self.network.stack)

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        self.budget = raised(self.network.layout, self.budget, budget)


@torch.no_grad()
def _see(network: Network, images: Tensor, common: Tensor | None = None) -> ForwardPass:
    """One pass; heads read the commons (B, F) if they are given."""
    outputs = network(images)
    heads = [logits for _, logits in outputs]
    if common is not None:
        pairs = zip(heads, network.stack, strict=True)
        heads = [logits if engram.common is None else logits + engram.common(common) for logits, engram in pairs]
    return ForwardPass([features.cpu() for features, _ in outputs], [logits.cpu() for logits in heads])


@torch.no_grad()
def _reading(
    engram: Engram, gathered: GatheredStatistics, train: Examples, held_out: Examples, context: LearnContext
) -> GatheredStatistics:
    """Let the engram's head read the commons too; what it then gives for the held-out images goes with the rest."""
    context.reporter.check()
    logits, balanced = gathered.held_out.head, context.recipe > 1 and class_weights(train) is not None
    head = attach(engram, [gathered.sums.packed()], logits, [gathered.common], held_out.labels, balanced=balanced)
    return replace(gathered, held_out=replace(gathered.held_out, head=head))
