"""Relevance-based Neural Freezing: one network whose relevant units may hardly move any more.

After "Explain to Not Forget" (arXiv 2205.01929): train, order all units by their relevance to the task, remove the
least relevant until accuracy has fallen by a tolerance, put them back, and lower the elasticity of the others. As
published it forgets a little, because held units go on reading free ones; with `resistance` they do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.config.rnf import RnfSettings
from engram.context import LearnContext
from engram.data.examples import Examples, split
from engram.errors import DamagedSnapshot, InvalidDefinition
from engram.explain.explainer import Heatmap, TaskExplainers
from engram.methods.base import RecognisingMethod, StoredModel, expect_accurate, expect_recognised
from engram.methods.rnf.importance import importance, relevant
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of
from engram.nn.elastic import Blocked, Rates, hold
from engram.nn.multihead import Kept, MultiHeadNetwork, Owners, blocked_by, claimed, resist
from engram.nn.network import Engram, pixels
from engram.nn.serialization import dump_multihead, load_multihead
from engram.recognition.predictions import Observation
from engram.recognition.state import RecogniserState
from engram.recognition.training import ForwardPass
from engram.training.distinctive_patches import start_from_patches
from engram.training.optimisers import ElasticOptimisers
from engram.training.report import LearningReport
from engram.training.trainer import Trainer, TrainingPhase


class Rnf(RecognisingMethod):
    """A shared network whose units have owners and elasticities, with the recogniser of models on blocks."""

    def __init__(
        self,
        definition: Definition,
        network: MultiHeadNetwork,
        state: RecogniserState,
    ) -> None:
        super().__init__(definition, network.units, state)
        self.settings = RnfSettings.model_validate(definition.settings)
        self.network = network
        self._explainers = TaskExplainers(network.engram)

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        drawn = RnfSettings.model_validate(definition.settings).initial_weights
        network = MultiHeadNetwork.create(layout, budget_of(layout, definition.budget), definition.seed, drawn)
        return cls(definition, network, RecogniserState.create(definition))

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
        if not engrams:
            raise DamagedSnapshot("a model has at least its commons")
        state = RecogniserState.load(definition, engrams[0], recogniser, kept)
        network = load_multihead(layout_of(definition), engrams[1:])
        if network.units != dict(budget):
            raise DamagedSnapshot("the network is not as wide as the model's budget")
        return cls(definition, network, state.check([head.task for head in network.stack]))

    def dump(self) -> StoredModel:
        commons, recogniser, sums = self.state.dump()
        return StoredModel((commons, *dump_multihead(self.network)), recogniser, sums)

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return self.network.tasks()

    @property
    def exact(self) -> bool:
        return self.settings.elasticity == 0 and self.settings.resistance

    def to(self, device: torch.device | str) -> None:
        self.network.to(device)
        self._explainers = TaskExplainers(self.network.engram)
        self.state.to(device)

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        self.state.required_sums()  # before any work is done in vain
        options, reporter = context.options, context.reporter
        train, held_out = split(examples, options.held_out, context.seed, recipe=context.recipe)
        report = LearningReport.begun(task, train, held_out, options, reporter.journal)
        trainer = Trainer.alone(self.network.layout, train, held_out, context)
        candidate = self._trained(task, trainer, report)
        network = self._frozen(candidate, trainer, report)
        with report.timed("recognising"):
            update = self.state.update(task, lambda images: _see(network, images), train, held_out, context)
        report.judge(update.hits, held_out)
        expect_accurate(report, options)
        report.recognised, report.answered = update.recognised, update.answered
        report.route(update.given, update.tasks)
        report.novelty = update.novelty
        expect_recognised(report, options)
        self.network, self.state = network, update.state
        self._explainers = TaskExplainers(network.engram)
        return report

    def _trained(self, task: str, trainer: Trainer, report: LearningReport) -> Engram:
        """The whole network trained on the task, each unit by its elasticity."""
        options, network = trainer.options, self.network
        report.candidate = dict(network.units)
        trainer.reporter.report("training", 0.0, units=sum(network.units.values()))
        candidate = network.candidate(task, trainer.train.classes, trainer.context.seed)
        # Without resistance earlier tasks may read what is free.
        if trainer.context.recipe > 1 and (self.settings.resistance or not network.stack):
            free = network.owners[network.layout.nodes[0].layer] == 0
            start_from_patches(candidate, trainer.train, trainer.context.generator(), free)
        rates = network.rates(self.settings.elasticity)
        blocked = blocked_by(network.layout, network.owners) if self.settings.resistance else None
        trainer = _restrained(candidate, trainer, rates, blocked)
        with report.timed("training"):
            phase = TrainingPhase.to_plateau(options)
            report.accuracy["trained"] = trainer.trained_accuracy(candidate, trainer.fit(candidate, phase))
        return candidate

    def _recover(self, candidate: Engram, owners: Owners, number: int, trainer: Trainer) -> None:
        """Train the task's own units and its head, now that nothing free is heard any more."""
        elasticity = self.settings.elasticity
        rates = {
            layer: torch.where(owner == number, 1.0, torch.where(owner == 0, 0.0, elasticity))
            for layer, owner in owners.items()
        }
        phase = TrainingPhase.recovering(trainer.options)
        blocked = blocked_by(self.network.layout, owners, head=True)
        _restrained(candidate, trainer, rates, blocked).fit(candidate, phase)

    def _frozen(self, candidate: Engram, trainer: Trainer, report: LearningReport) -> MultiHeadNetwork:
        """The network in which the task owns what is relevant to it and was free."""
        with report.timed("pruning"):
            kept = self._kept(candidate, trainer)
        number = len(self.network.stack) + 1
        owners = claimed(self.network.owners, kept, number)
        if self.settings.resistance:
            resist(candidate, owners)
            with report.timed("recovering"):
                self._recover(candidate, owners, number, trainer)
        network = self.network.accepted(candidate, owners)
        report.units = dict(network.tasks()[-1].units)
        trainer.reporter.report("freezing", 1.0, units=sum(report.units.values()))
        report.details["relevant"] = {layer: int(units.sum()) for layer, units in kept.items()}
        report.accuracy["kept"] = trainer.accuracy(network.engram(number - 1), trainer.held_out)
        return network

    def _kept(self, candidate: Engram, trainer: Trainer) -> Kept:
        options, reporter, validation = trainer.options, trainer.reporter, trainer.validation
        whole = {layer: torch.ones_like(owner, dtype=torch.bool) for layer, owner in self.network.owners.items()}
        if not options.prune:
            return whole
        reporter.report("pruning", 0.0, units=sum(candidate.units.values()))
        tolerance = options.tolerance if self.settings.tolerance is None else self.settings.tolerance
        some = torch.randperm(len(validation), generator=trainer.generator)[: self.settings.reference]
        reference = validation.subset(some)
        balanced = trainer.weights is not None
        scores = reporter.journal.once(
            "importance", lambda: importance(candidate, reference, reporter, self.device, balanced=balanced)
        )
        # With resistance nothing of an earlier task is taken away, because its weights cannot be touched.
        owned = {layer: (owner > 0) & self.settings.resistance for layer, owner in self.network.owners.items()}
        least = trainer.validated(candidate) - tolerance
        return relevant(candidate, scores, owned, options.floor, least, partial(trainer.validated, least=least))

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        seen = _see(self.network, given)
        common = self.commons(given).cpu()  # (B, F)
        verdict = self.recogniser.assess(seen.features, common)
        return Observation(
            self.tasks,
            tuple(seen.heads),
            self.state.temperatures,
            verdict.log_tasks,
            verdict.p_values,
            levels=verdict.levels,
            vouched=verdict.vouched,
            balances=self.recogniser.balances,
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainers.explain(image, owner, target, composite)

    def capacity(self) -> list[LayerCapacity]:
        return self.network.capacity()

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        raise InvalidDefinition("the network of a model of method rnf is as wide as the budget it was created with")


def _restrained(candidate: Engram, trainer: Trainer, rates: Rates, blocked: Blocked | None) -> Trainer:
    """The trainer that moves each unit of the candidate by its elasticity only."""
    hold(candidate, rates)
    return trainer.with_optimiser(ElasticOptimisers(trainer.context, candidate, rates, blocked))


@torch.no_grad()
def _see(network: MultiHeadNetwork, images: Tensor) -> ForwardPass:
    features, heads = network(images)
    features = features.cpu()
    own = [features[:, network.columns(number)] for number in range(len(heads))]
    return ForwardPass(own, [logits.cpu() for logits in heads])
