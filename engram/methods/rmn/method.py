"""Relevance Mapping Networks: one network, and for each task a learned map of the weights it uses.

After Kaushik et al. 2021 ("Understanding Catastrophic Forgetting and Remembering in Continual Learning with Optimal
Relevance Mapping"). Every weight that a finished task's rounded map uses is fixed, so that its answers are exact for
ever; later tasks may use it, and learn which, but not move it. As published (`fixed: settled`) only relevance that has
settled at 1 fixes a weight, and old answers drift.

An answer takes one pass for each task. Convolutions have a normalisation of each task's own, dense layers none, and
there are no biases. Through HTTP tasks are learned with their names; a stream whose tasks nobody announces is learned
through Python, by `engram.streams`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.config.rmn import RmnSettings
from engram.context import LearnContext
from engram.data.examples import Examples, split
from engram.errors import DamagedSnapshot
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.base import RecognisingMethod, StoredModel, expect_accurate, expect_recognised
from engram.methods.rmn.map_learning import MapCandidate, MapRegulariser
from engram.methods.rmn.map_pruning import logits_of, prune
from engram.methods.rmn.maps import RelevanceMap, SharedNetwork, unpacked
from engram.methods.rmn.serialization import dump_loose, dump_map, load_loose, load_map
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, raised
from engram.nn.network import Engram, pixels
from engram.recognition.predictions import Observation
from engram.recognition.recogniser import Verdict
from engram.recognition.state import RecogniserState
from engram.recognition.training import ForwardPass
from engram.training.report import LearningReport
from engram.training.trainer import Trainer, TrainingPhase


class Rmn(RecognisingMethod):
    """A network whose weights tasks share by choosing among them."""

    backbones: ClassVar[frozenset[str]] = frozenset({"mlp", "cnn", "vgg11", "vgg16"})

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        shared: SharedNetwork,
        passes: Sequence[Engram],
        state: RecogniserState,
    ) -> None:
        super().__init__(definition, budget, state)
        self.settings = RmnSettings.model_validate(definition.settings)
        self.shared = shared
        self.passes = tuple(passes)
        self._explainers = tuple(Explainer([one]) for one in self.passes)

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        budget = budget_of(layout, definition.budget)
        shared = SharedNetwork(layout, _units(definition, budget))
        return cls(definition, budget, shared, (), RecogniserState.create(definition))

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
        layout = layout_of(definition)
        if len(engrams) < 2:
            raise DamagedSnapshot("a model has at least its commons and its loose weights")
        state = RecogniserState.load(definition, engrams[0], recogniser, kept)
        maps = [load_map(layout, data) for data in engrams[2:]]
        loose = load_loose(engrams[1])
        shared = SharedNetwork(layout, _units(definition, budget), maps, loose)
        passes = _passes(shared, reuse)
        return cls(definition, budget, shared, passes, state.check([one.task for one in maps]))

    def dump(self) -> StoredModel:
        commons, recogniser, sums = self.state.dump()
        engrams = (commons, dump_loose(self.shared.loose()), *(dump_map(one) for one in self.shared.maps))
        return StoredModel(engrams, recogniser, sums)

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        owned = self._owned()
        return tuple(
            TaskInfo(one.task, one.classes, {layer: counts[number] for layer, counts in owned.items()})
            for number, one in enumerate(self.shared.maps)
        )

    @property
    def exact(self) -> bool:
        return self.settings.fixed == "rounded"

    def to(self, device: torch.device | str) -> None:
        self.state.to(device)
        for one in self.passes:
            one.to(device)
        self._explainers = tuple(Explainer([one]) for one in self.passes)

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        self.state.required_sums()  # before any work is done in vain
        options, reporter = context.options, context.reporter
        train, held_out = split(examples, options.held_out, context.seed, recipe=context.recipe)
        report = LearningReport.begun(task, train, held_out, options, reporter.journal)
        trainer = Trainer.alone(self.shared.layout, train, held_out, context)
        candidate = self._train(task, trainer, report)
        if options.prune:
            prune(candidate, trainer, report, lambda phase: self._fit(candidate, trainer, phase))
        reporter.report("freezing", 1.0, units=sum(candidate.units.values()))
        report.accuracy["kept"] = trainer.accuracy(candidate, held_out)
        kept, whole = candidate.finished(self.settings, _peak(candidate, held_out, trainer))
        shared = _with(self.shared, kept, whole)
        passes = (*_earlier_passes(shared, self), shared.engram(kept).to(self.device))
        with report.timed("recognising"):
            update = self.state.update(task, lambda images: _see(passes, images), train, held_out, context)
        report.judge(update.hits, held_out)
        expect_accurate(report, options)
        report.recognised, report.answered = update.recognised, update.answered
        report.route(update.given, update.tasks)
        report.novelty = update.novelty
        expect_recognised(report, options)
        self.shared, self.passes, self.state = shared, passes, update.state
        self._explainers = tuple(Explainer([one]) for one in passes)
        report.units = dict(self.tasks[-1].units)
        report.details = self._details(kept)
        return report

    def _train(self, task: str, trainer: Trainer, report: LearningReport) -> MapCandidate:
        options, seed = trainer.options, trainer.context.seed
        report.candidate = dict(self.shared.units)
        trainer.reporter.report("training", 0.0, units=sum(self.shared.units.values()))
        candidate = MapCandidate(self.shared, task, trainer.train.classes, self.settings, seed).to(self.device)
        if trainer.context.recipe > 1:
            candidate.start_from_patches(trainer.train, trainer.context.generator())
        with report.timed("training"):
            phase = TrainingPhase.to_plateau(options)
            best = self._fit(candidate, trainer, phase)
        candidate.settle()
        report.accuracy["trained"] = best
        return candidate

    def _fit(self, candidate: MapCandidate, trainer: Trainer, phase: TrainingPhase) -> float:
        size, shape = trainer.batch_size, self.definition.input
        steps = phase.epochs * math.ceil(len(trainer.train) / size)
        sides = (shape.channels, shape.height, shape.width)
        regulariser = MapRegulariser(candidate, self.settings, trainer.context, size, steps, trainer.generator, sides)
        with regulariser.factory() as factory:
            best = trainer.with_optimiser(factory).fit(candidate, phase)
        return trainer.trained_accuracy(candidate, best)

    @torch.no_grad()
    def see(self, images: Tensor) -> ForwardPass:
        """What every task's pass sees in images (B, C, H, W) float32 on the model's device."""
        return _see(self.passes, images)

    @torch.no_grad()
    def assess(self, images: Tensor, seen: ForwardPass) -> Verdict:
        """What the recogniser makes of images (B, C, H, W) float32 and of what `see` gave for them."""
        common = self.commons(images).cpu()  # (B, F)
        return self.recogniser.assess(seen.features, common)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        seen = self.see(given)
        verdict = self.assess(given, seen)
        temperatures = self.state.temperatures
        if self.settings.recognition == "recogniser":
            log_tasks = verdict.log_tasks
        else:
            peaks = torch.stack([logits.logsumexp(1) for logits in seen.heads], 1)  # (B, T)
            if self.settings.recognition == "calibrated":
                typical = torch.stack([one.peak for one in self.shared.maps])  # (T, 2)
                peaks = (peaks - typical[:, 0]) / typical[:, 1]
            else:
                temperatures = torch.ones_like(temperatures)  # the largest logit of all is to win
            log_tasks = torch.log_softmax(peaks, 1)
        heads, passes = tuple(seen.heads), len(self.passes)
        return Observation(
            self.tasks,
            heads,
            temperatures,
            log_tasks,
            verdict.p_values,
            passes,
            verdict.levels,
            verdict.vouched,
            self.recogniser.balances,
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainers[owner].explain(image, 0, target, composite)

    def capacity(self) -> list[LayerCapacity]:
        """Budget, owned and free of each layer, in units' worth of weights: what a task was first to fix is its own."""
        owned = self._owned()
        names = [one.task for one in self.shared.maps]
        return [
            LayerCapacity(
                layer, self.budget[layer], dict(zip(names, counts, strict=True)), self.budget[layer] - sum(counts)
            )
            for layer, counts in owned.items()
        ]

    def _owned(self) -> dict[str, list[int]]:
        """For each layer the units' worth of weights of every task: sums are rounded, so that nothing is lost."""
        found = {}
        for layer, counts in self.shared.owned.items():
            whole, budget = self.shared.weights[layer], self.budget[layer]
            sums = [0, *(round(budget * count / whole) for count in accumulate(counts))]
            found[layer] = [after - before for before, after in pairwise(sums)]
        return found

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        larger = raised(self.shared.layout, self.budget, budget)
        self.shared = self.shared.grown(_units(self.definition, larger))
        self.budget = larger

    def _details(self, one: RelevanceMap) -> dict[str, object]:
        """How many weights each layer has, how many the newest task uses, and how many of those were there before."""
        layers: dict[str, object] = {}
        for name, shared_weight in self.shared.shared_weights.items():
            place = self.shared.place(one, name)
            used = unpacked(one.used[name], shared_weight.weight[place].shape)
            first = shared_weight.first[place]
            layers[name] = {
                "weights": shared_weight.weight.numel(),
                "used": int(used.sum()),
                "fixed_now": int((first == len(self.shared.maps) - 1).sum()),
                "fixed": int(shared_weight.fixed.sum()),
            }
        return {
            "weights": layers,
            "labels": list(self.shared.labels),
        }


def _units(definition: Definition, budget: Mapping[str, int]) -> dict[str, int]:
    share = RmnSettings.model_validate(definition.settings).room
    return {layer: max(1, math.ceil(share * units)) for layer, units in budget.items()}


def _with(shared: SharedNetwork, kept: RelevanceMap, whole: Mapping[str, Tensor]) -> SharedNetwork:
    """The network with a map more, and with loose weights as the task has left them."""
    bare = SharedNetwork(shared.layout, shared.units, (*shared.maps, kept))
    loose = {}
    for name, shared_weight in bare.shared_weights.items():
        weights = shared_weight.weight.clone()
        before = shared.shared_weights[name]
        weights[tuple(slice(0, side) for side in before.weight.shape)] = before.weight
        weights[bare.place(kept, name)] = whole[name]
        loose[name] = weights[shared_weight.used & ~shared_weight.fixed]
    return shared.appended(kept, loose)


def _passes(shared: SharedNetwork, reuse: Rmn | None) -> list[Engram]:
    """Every task's pass, taken from another version of the model as long as both have the same past."""
    known = [] if reuse is None or not reuse.exact else list(zip(reuse.shared.maps, reuse.passes, strict=True))
    passes: list[Engram] = []
    for number, one in enumerate(shared.maps):
        same = number < len(known) and len(passes) == number and same_map(one, known[number][0])
        if not same:
            known = known[:number]
        passes.append(known[number][1] if same else shared.engram(one))
    return passes


def same_map(one: RelevanceMap, other: RelevanceMap) -> bool:
    """Whether two maps are the same to the last bit."""
    if (one.task, one.classes, one.units) != (other.task, other.classes, other.units):
        return False
    groups = ((one.used, other.used), (one.values, other.values), (one.norms, other.norms))
    return all(a.keys() == b.keys() and all(torch.equal(part, b[name]) for name, part in a.items()) for a, b in groups)


def _earlier_passes(shared: SharedNetwork, method: Rmn) -> tuple[Engram, ...]:
    """The passes of the tasks so far: as they are if nothing can have moved, or else built again."""
    if method.exact:
        return method.passes
    return tuple(shared.engram(one).to(method.device) for one in shared.maps[:-1])


@torch.no_grad()
def _see(passes: Sequence[Engram], images: Tensor) -> ForwardPass:
    features, heads = [], []
    for one in passes:
        joined = one(images, {})
        features.append(joined[one.layout.features.name].cpu())
        heads.append(one.logits(joined).cpu())
    return ForwardPass(features, heads)


def _peak(engram: Engram, held_out: Examples, trainer: Trainer) -> Tensor:
    """(2,): mean and standard deviation of the soft maximum over held-out images."""
    peaks = logits_of(engram, held_out, trainer).logsumexp(1)
    return torch.stack([peaks.mean(), peaks.std(unbiased=False).clamp_min(1e-3)])
