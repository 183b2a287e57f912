"""Relevance-based Neural Freezing: one network, in which what is relevant to a task is held still from then on.

After "Explain to Not Forget" (arXiv 2205.01929): train, order all units by their relevance to the task, remove the
least relevant until accuracy has fallen by a tolerance, put them back, and lower the elasticity of the others. As
published it forgets a little, because held units go on reading free ones; with `resistance` they do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.config.rnf import RnfSettings
from engram.data.examples import Examples, split
from engram.errors import DamagedSnapshot, InvalidDefinition
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.base import Method, StoredModel, expect_accurate, expect_recognised
from engram.methods.rnf.importance import importance, relevant
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of
from engram.nn.commons import Commons
from engram.nn.elastic import Blocked, Rates, hold
from engram.nn.multihead import Kept, MultiHeadNetwork, Owners, blocked_by, claimed, resist
from engram.nn.network import Engram, Network, pixels
from engram.nn.serialization import dump_commons, dump_multihead, load_commons, load_multihead
from engram.recognition.predictions import Observation
from engram.recognition.recogniser import Recogniser
from engram.recognition.ridge import PackedGram, dump_sums, load_sums
from engram.recognition.serialization import check_readings, dump_recogniser, load_recogniser
from engram.recognition.training import ForwardPass, teach
from engram.training.optimisers import ElasticOptimisers, optimiser_of
from engram.training.report import LearningReport
from engram.training.trainer import Trainer, TrainingPhase

if TYPE_CHECKING:
    from engram.training.optimisers import OptimiserFactory


class Rnf(Method):
    """A shared network whose units have owners and elasticities, with the recogniser of models on blocks."""

    def __init__(
        self,
        definition: Definition,
        network: MultiHeadNetwork,
        commons: Commons,
        recogniser: Recogniser,
        sums: tuple[PackedGram, ...] | None,
    ) -> None:
        super().__init__(definition, network.units)
        self.settings = RnfSettings.model_validate(definition.settings)
        self.network = network
        self.commons = commons.eval()
        self.recogniser = recogniser
        self.sums = sums

    @classmethod
    def create(cls, definition: Definition) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        drawn = RnfSettings.model_validate(definition.settings).initial_weights
        network = MultiHeadNetwork.create(layout, budget_of(layout, definition.budget), definition.seed, drawn)
        commons = Commons(definition)
        return cls(definition, network, commons, Recogniser.empty(commons.features), ())

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
        commons = load_commons(definition, engrams[0])
        network = load_multihead(layout_of(definition), engrams[1:])
        if network.units != dict(budget):
            raise DamagedSnapshot("the network is not as wide as the model's budget")
        known = load_recogniser(recogniser)
        check_readings(known, [head.task for head in network.stack])
        sums = None if kept is None else tuple(load_sums(piece) for piece in kept)
        return cls(definition, network, commons, known, sums)

    def dump(self) -> StoredModel:
        assert self.sums is not None, "a model restored without its sums cannot be written again"
        engrams = (dump_commons(self.commons), *dump_multihead(self.network))
        return StoredModel(engrams, dump_recogniser(self.recogniser), tuple(map(dump_sums, self.sums)))

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return self.network.tasks()

    @property
    def exact(self) -> bool:
        return self.settings.elasticity == 0 and self.settings.resistance

    @property
    def device(self) -> torch.device:
        return self.commons.filters.weight.device

    def to(self, device: torch.device | str) -> None:
        self.network.to(device)
        self.commons.to(device)

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
        train, held_out = split(examples, options.held_out, seed)
        report = LearningReport.begun(task, train, held_out, options, reporter.journal)
        trainer = self._trainer(train, held_out, options, seed, reporter)
        candidate = self._trained(task, trainer, seed, report, optimiser)
        network = self._frozen(candidate, trainer, report, optimiser)
        expect_accurate(report, options)
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
        self.network, self.commons = network, taught.commons
        self.recogniser, self.sums = taught.recogniser, (*self.sums, taught.sums)
        return report

    def _trainer(
        self, train: Examples, held_out: Examples, options: LearnOptions, seed: int, reporter: Reporter
    ) -> Trainer:
        nothing_before = Network(self.network.layout)
        generator = torch.Generator().manual_seed(seed)
        return Trainer(nothing_before, train, held_out, options, reporter, self.device, generator)

    def _trained(
        self, task: str, trainer: Trainer, seed: int, report: LearningReport, optimiser: OptimiserFactory | None
    ) -> Engram:
        """The whole network trained on the task, each unit by its elasticity."""
        options, network = trainer.options, self.network
        report.candidate = dict(network.units)
        trainer.reporter.report("training", 0.0, units=sum(network.units.values()))
        candidate = network.candidate(task, trainer.train.classes, seed)
        rates = network.rates(self.settings.elasticity)
        blocked = blocked_by(network.layout, network.owners) if self.settings.resistance else None
        self._restrain(candidate, trainer, rates, blocked, optimiser)
        with report.timed("training"):
            run = TrainingPhase("training", (0.0, 1.0), options.epochs, options.learning_rate, options.patience)
            report.accuracy["trained"] = trainer.fit(candidate, run).accuracy
        return candidate

    def _restrain(
        self,
        candidate: Engram,
        trainer: Trainer,
        rates: Rates,
        blocked: Blocked | None,
        optimiser: OptimiserFactory | None,
    ) -> None:
        """Let the trainer move units by their elasticity only."""
        options = trainer.options
        hold(candidate, rates)
        trainer.optimiser = ElasticOptimisers(
            optimiser or (lambda given: optimiser_of(options, given)), candidate, rates, blocked
        )

    def _recover(
        self, candidate: Engram, owners: Owners, number: int, trainer: Trainer, optimiser: OptimiserFactory | None
    ) -> None:
        """Train the task's own units and its head, now that nothing free is heard any more."""
        epochs = trainer.options.recovery_epochs
        elasticity = self.settings.elasticity
        rates = {
            layer: torch.where(owner == number, 1.0, torch.where(owner == 0, 0.0, elasticity))
            for layer, owner in owners.items()
        }
        self._restrain(candidate, trainer, rates, blocked_by(self.network.layout, owners, head=True), optimiser)
        trainer.fit(
            candidate, TrainingPhase("recovering", (0.0, 1.0), epochs, trainer.options.learning_rate / 4, epochs)
        )

    def _frozen(
        self, candidate: Engram, trainer: Trainer, report: LearningReport, optimiser: OptimiserFactory | None
    ) -> MultiHeadNetwork:
        """The network in which the task owns what is relevant to it and was free."""
        with report.timed("pruning"):
            kept = self._kept(candidate, trainer)
        number = len(self.network.stack) + 1
        owners = claimed(self.network.owners, kept, number)
        if self.settings.resistance:
            resist(candidate, owners)
            with report.timed("recovering"):
                self._recover(candidate, owners, number, trainer, optimiser)
        network = self.network.accepted(candidate, owners)
        report.units = dict(network.tasks()[-1].units)
        trainer.reporter.report("freezing", 1.0, units=sum(report.units.values()))
        report.details["relevant"] = {layer: int(units.sum()) for layer, units in kept.items()}
        report.accuracy["kept"] = trainer.accuracy(network.engram(number - 1), trainer.held_out)
        return network

    def _kept(self, candidate: Engram, trainer: Trainer) -> Kept:
        options, reporter, judged = trainer.options, trainer.reporter, trainer.judged
        whole = {layer: torch.ones_like(owner, dtype=torch.bool) for layer, owner in self.network.owners.items()}
        if not options.prune:
            return whole
        reporter.report("pruning", 0.0, units=sum(candidate.units.values()))
        tolerance = options.tolerance if self.settings.tolerance is None else self.settings.tolerance
        some = torch.randperm(len(judged), generator=trainer.generator)[: self.settings.reference]
        reference = judged.subset(some)
        scores = reporter.journal.once("importance", lambda: importance(candidate, reference, reporter, self.device))

        def accuracy(engram: Engram) -> float:
            return trainer.accuracy(engram, judged)

        # With resistance nothing of an earlier task is taken away, because its weights cannot be touched.
        owned = {layer: (owner > 0) & self.settings.resistance for layer, owner in self.network.owners.items()}
        return relevant(candidate, scores, owned, options.floor, accuracy(candidate) - tolerance, accuracy)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        seen = _see(self.network, given)
        common = self.commons(given).cpu()  # (B, F)
        judged = self.recogniser.judged(seen.features, common)
        return Observation(
            self.tasks,
            tuple(seen.heads),
            torch.stack([reading.temperature for reading in self.recogniser.readings]),
            judged.log_tasks,
            judged.p_values,
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return Explainer([self.network.engram(owner)]).explain(image, 0, target, composite)

    def capacity(self) -> list[LayerCapacity]:
        return self.network.capacity()

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        raise InvalidDefinition("the network of a model of method rnf is as wide as the budget it was created with")


@torch.no_grad()
def _see(network: MultiHeadNetwork, images: Tensor) -> ForwardPass:
    features, heads = network(images)
    features = features.cpu()
    own = [features[:, network.columns(number)] for number in range(len(heads))]
    return ForwardPass(own, [logits.cpu() for logits in heads])
