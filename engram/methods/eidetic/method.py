"""EideticNet on blocks, the default: every task an engram that nothing later can touch.

After EideticNet (train to a plateau, score, prune within a tolerance, recover, freeze), with blocks in the place
of masks: what a task owns is computed by kernels of its own, from its predecessors' units and its own alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.config.definition import Definition
from engram.config.eidetic import EideticSettings
from engram.config.options import LearnOptions
from engram.data.examples import Examples
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.base import Method, StoredModel, expect_accurate, expect_recognised
from engram.methods.eidetic.commons_head import fitted
from engram.methods.eidetic.router import dump_images, load_images, trained
from engram.methods.eidetic.router import scores as routing_scores
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, candidate_units, capacity, raised
from engram.nn.commons import Commons
from engram.nn.network import Engram, Network, pixels
from engram.recognition.predictions import Observation
from engram.recognition.recogniser import Recogniser
from engram.recognition.ridge import PackedGram
from engram.recognition.training import ForwardPass, GatheredStatistics, gather, teach
from engram.training.learner import Learner
from engram.training.report import LearningReport

if TYPE_CHECKING:
    from engram.training.optimisers import OptimiserFactory


class Eidetic(Method):
    """A stack of engrams with a recogniser over them; every answer of a given task is exact for ever.

    With the retention `data`, the tasks' images are kept, and the router that is trained on them recognises the task.
    """

    retentions: ClassVar[frozenset[str]] = frozenset({"none", "data"})

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        network: Network,
        commons: Commons,
        recogniser: Recogniser,
        sums: tuple[PackedGram, ...] | None,
        router: Engram | None = None,
        images: tuple[tuple[str, Examples], ...] = (),
    ) -> None:
        super().__init__(definition, budget)
        self.router = router
        self.images = images
        self.settings = EideticSettings.model_validate(definition.settings)
        self.network = network.eval()
        self.commons = commons.eval()
        self.recogniser = recogniser
        self.sums = sums
        self._explainer = Explainer(network.stack, self.commons)

    @classmethod
    def create(cls, definition: Definition) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        commons = Commons(definition)
        budget = budget_of(layout, definition.budget)
        parts = EideticSettings.model_validate(definition.settings).recognise_by
        return cls(definition, budget, Network(layout), commons, Recogniser.empty(commons.features, parts), ())

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
        from engram.nn.serialization import load_engram, load_stack
        from engram.recognition.ridge import load_sums
        from engram.recognition.serialization import check_readings, load_recogniser

        layout, routed = layout_of(definition), definition.retention == "data" and len(engrams) > 2
        router = load_engram(layout, engrams[-1]) if routed else None
        engrams = engrams[:-1] if routed else engrams
        commons, stack = load_stack(definition, layout, engrams, () if reuse is None else reuse.network.stack)
        known = load_recogniser(recogniser)
        check_readings(known, [engram.task for engram in stack])
        if kept is None:
            return cls(definition, budget, Network(layout, stack), commons, known, None, router)
        count = len(kept) // 2 if definition.retention == "data" else len(kept)
        sums, images = tuple(map(load_sums, kept[:count])), tuple(map(load_images, kept[count:]))
        return cls(definition, budget, Network(layout, stack), commons, known, sums, router, images)

    def dump(self) -> StoredModel:
        from engram.nn.serialization import dump_commons, dump_engram
        from engram.recognition.ridge import dump_sums
        from engram.recognition.serialization import dump_recogniser

        assert self.sums is not None, "a model restored without its sums cannot be written again"
        stack = self.network.stack if self.router is None else (*self.network.stack, self.router)
        engrams = (dump_commons(self.commons), *(dump_engram(engram) for engram in stack))
        kept = (*map(dump_sums, self.sums), *(dump_images(*one) for one in self.images))
        return StoredModel(engrams, dump_recogniser(self.recogniser), kept)

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
        for module in (self.network, self.commons, self.router):
            if module is not None:
                module.to(device)
        self._explainer = Explainer(self.network.stack, self.commons)

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
        with report.timed("recognising"):
            commons = self.commons.fitted(train.images, reporter).eval()
            network = self.network.appended(engram.to(self.device)).eval()
            see = partial(_see, network)
            gathered = gather(commons, see, train, held_out, reporter, self.device)
            if self.settings.read_commons:
                gathered = _reading(engram, gathered, held_out, reporter)
            taught = teach(
                commons,
                self.recogniser,
                self.sums,
                see,
                task,
                train,
                held_out,
                reporter,
                self.device,
                gathered,
                chained="chain" in self.settings.recognise_by,
            )
        report.recognised, report.answered = taught.recognised, taught.answered
        report.accuracy["kept"] = taught.accuracy
        expect_accurate(report, options)
        images, router = self.images, None
        if self.definition.retention == "data":
            images = (*images, (task, replace(train, held_out=held_out)))
            if len(images) > 1:  # with one task there is nothing to route
                with report.timed("recognising"):
                    routed = trained(network, self.budget, images, options, seed, reporter, self.device)
                router = routed.engram
                report.details["recognised_by_router"] = {
                    name: float(right.double().mean()) for (name, _), right in zip(images, routed.right, strict=True)
                }
                report.recognised = float(routed.right[-1].double().mean())
                report.answered = float((routed.right[-1] & taught.hits).double().mean())
        expect_recognised(report, options)
        self.network, self.commons, self.router, self.images = network, commons, router, images
        self.recogniser, self.sums = taught.recogniser, (*self.sums, taught.sums)
        self._explainer = Explainer(network.stack, self.commons)
        return report

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        common = self.commons(given)  # (B, F)
        seen = _see(self.network, given, common)
        judged = self.recogniser.judged(seen.features, common.cpu(), chained=True)
        log_tasks = judged.log_tasks
        if self.router is not None:
            log_tasks = torch.log_softmax(routing_scores(self.network, self.router, images, self.device), 1)
        return Observation(
            self.tasks,
            tuple(seen.heads),
            torch.stack([reading.temperature for reading in self.recogniser.readings]),
            log_tasks,
            judged.p_values,
            passes=1 if self.router is None else 2,
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
    engram: Engram, gathered: GatheredStatistics, held_out: Examples, reporter: Reporter
) -> GatheredStatistics:
    """Let the engram's head read the commons too; what it then gives for the held-out images goes with the rest."""
    reporter.check()
    logits = gathered.judged.head  # (M, classes)
    factor, common = fitted(gathered.sums.packed(), logits, gathered.common, held_out.labels)
    head = factor * logits + common(gathered.common)
    engram.head.weight.mul_(factor)
    engram.head.bias.mul_(factor)
    engram.common = common.to(engram.head.weight.device)
    engram.freeze()
    return replace(gathered, judged=replace(gathered.judged, head=head))
