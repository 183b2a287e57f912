"""Relevance mapping networks: one network, and for each task a learned map of the weights it uses.

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
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.config.rmn import RmnSettings
from engram.data.examples import Examples, split
from engram.errors import DamagedSnapshot
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.base import Method, StoredModel, expect_accurate, expect_recognised
from engram.methods.rmn.map_learning import MapCandidate, MapRegulariser
from engram.methods.rmn.map_pruning import logits_of, prune
from engram.methods.rmn.maps import RelevanceMap, SharedNetwork, unpacked
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, raised
from engram.nn.commons import Commons
from engram.nn.network import Engram, Network, pixels
from engram.recognition.predictions import Observation
from engram.recognition.recogniser import Recogniser, Verdict
from engram.recognition.ridge import PackedGram
from engram.recognition.training import ForwardPass, teach
from engram.training.report import LearningReport
from engram.training.trainer import Trainer, TrainingPhase

if TYPE_CHECKING:
    from engram.training.optimisers import OptimiserFactory


class Rmn(Method):
    """A network whose weights tasks share by choosing among them."""

    backbones: ClassVar[frozenset[str]] = frozenset({"mlp", "cnn"})

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        shared: SharedNetwork,
        passes: Sequence[Engram],
        commons: Commons,
        recogniser: Recogniser,
        sums: tuple[PackedGram, ...] | None,
    ) -> None:
        super().__init__(definition, budget)
        self.settings = RmnSettings.model_validate(definition.settings)
        self.shared = shared
        self.passes = tuple(passes)
        self.commons = commons.eval()
        self.recogniser = recogniser
        self.sums = sums
        self._explainers = tuple(Explainer([one]) for one in self.passes)

    @classmethod
    def create(cls, definition: Definition) -> Self:
        cls.check(definition)
        layout = layout_of(definition)
        commons = Commons(definition)
        budget = budget_of(layout, definition.budget)
        shared = SharedNetwork(layout, _units(definition, budget))
        return cls(definition, budget, shared, (), commons, Recogniser.empty(commons.features), ())

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
        from engram.methods.rmn.serialization import load_loose, load_map
        from engram.nn.serialization import load_commons
        from engram.recognition.ridge import load_sums
        from engram.recognition.serialization import check_readings, load_recogniser

        layout = layout_of(definition)
        if len(engrams) < 2:
            raise DamagedSnapshot("a model has at least its commons and its loose weights")
        commons = load_commons(definition, engrams[0])
        maps = [load_map(layout, data) for data in engrams[2:]]
        loose = load_loose(engrams[1])
        shared = SharedNetwork(layout, _units(definition, budget), maps, loose)
        passes = _passes(shared, reuse)
        known = load_recogniser(recogniser)
        check_readings(known, [one.task for one in maps])
        sums = None if kept is None else tuple(load_sums(piece) for piece in kept)
        return cls(definition, budget, shared, passes, commons, known, sums)

    def dump(self) -> StoredModel:
        from engram.methods.rmn.serialization import dump_loose, dump_map
        from engram.nn.serialization import dump_commons
        from engram.recognition.ridge import dump_sums
        from engram.recognition.serialization import dump_recogniser

        assert self.sums is not None, "a model restored without its sums cannot be written again"
        engrams = (
            dump_commons(self.commons),
            dump_loose(self.shared.loose()),
            *(dump_map(one) for one in self.shared.maps),
        )
        return StoredModel(engrams, dump_recogniser(self.recogniser), tuple(map(dump_sums, self.sums)))

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

    @property
    def device(self) -> torch.device:
        return self.commons.filters.weight.device

    def to(self, device: torch.device | str) -> None:
        self.commons.to(device)
        for one in self.passes:
            one.to(device)
        self._explainers = tuple(Explainer([one]) for one in self.passes)

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
        candidate = self._train(task, trainer, report, seed, optimiser)
        if options.prune:
            prune(candidate, trainer, report, lambda run: self._fit(candidate, trainer, run, optimiser))
        reporter.report("freezing", 1.0, units=sum(candidate.units.values()))
        report.accuracy["kept"] = trainer.accuracy(candidate, held_out)
        expect_accurate(report, options)
        kept, whole = candidate.finished(self.settings, _peak(candidate, held_out, trainer))
        shared = _with(self.shared, kept, whole)
        passes = (*_moved(shared, self), shared.engram(kept).to(self.device))
        with report.timed("recognising"):
            taught = teach(
                self.commons,
                self.recogniser,
                self.sums,
                lambda images: _see(passes, images),
                task,
                train,
                held_out,
                reporter,
                self.device,
            )
        report.recognised, report.answered = taught.recognised, taught.answered
        expect_recognised(report, options)
        self.shared, self.passes = shared, passes
        self.commons = taught.commons
        self.recogniser, self.sums = taught.recogniser, (*self.sums, taught.sums)
        self._explainers = tuple(Explainer([one]) for one in passes)
        report.units = dict(self.tasks[-1].units)
        report.details = self._details(kept)
        return report

    def _trainer(
        self, train: Examples, held_out: Examples, options: LearnOptions, seed: int, reporter: Reporter
    ) -> Trainer:
        network, generator = Network(self.shared.layout), torch.Generator().manual_seed(seed)
        return Trainer(network, train, held_out, options, reporter, self.device, generator)

    def _train(
        self,
        task: str,
        trainer: Trainer,
        report: LearningReport,
        seed: int,
        optimiser: OptimiserFactory | None,
    ) -> MapCandidate:
        options = trainer.options
        report.candidate = dict(self.shared.units)
        trainer.reporter.report("training", 0.0, units=sum(self.shared.units.values()))
        candidate = MapCandidate(self.shared, task, trainer.train.classes, self.settings, seed).to(self.device)
        with report.timed("training"):
            run = TrainingPhase("training", (0.0, 1.0), options.epochs, options.learning_rate, options.patience)
            best = self._fit(candidate, trainer, run, optimiser)
        candidate.settle()
        report.accuracy["trained"] = best
        return candidate

    def _fit(
        self, candidate: MapCandidate, trainer: Trainer, run: TrainingPhase, optimiser: OptimiserFactory | None
    ) -> float:
        size, shape = trainer.batch_size, self.definition.input
        steps = run.epochs * math.ceil(len(trainer.train) / size)
        sides = (shape.channels, shape.height, shape.width)
        regulariser = MapRegulariser(
            candidate, self.settings, trainer.options, size, steps, trainer.generator, sides, given=optimiser
        )
        with regulariser.factory() as factory:
            return replace(trainer, optimiser=factory).fit(candidate, run).accuracy

    @torch.no_grad()
    def see(self, images: Tensor) -> ForwardPass:
        """What every task's pass sees in images (B, C, H, W) float32 on the model's device."""
        return _see(self.passes, images)

    @torch.no_grad()
    def judged(self, images: Tensor, seen: ForwardPass) -> Verdict:
        """What the recogniser makes of images (B, C, H, W) float32 and of what `see` gave for them."""
        common = self.commons(images).cpu()  # (B, F)
        return self.recogniser.judged(seen.features, common)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        given = pixels(images.to(self.device))  # (B, C, H, W)
        seen = self.see(given)
        judged = self.judged(given, seen)
        temperatures = torch.stack([reading.temperature for reading in self.recogniser.readings])
        if self.settings.recognition == "recogniser":
            log_tasks = judged.log_tasks
        else:
            peaks = torch.stack([logits.logsumexp(1) for logits in seen.heads], 1)  # (B, T)
            if self.settings.recognition == "calibrated":
                usual = torch.stack([one.peak for one in self.shared.maps])  # (T, 2)
                peaks = (peaks - usual[:, 0]) / usual[:, 1]
            else:
                temperatures = torch.ones_like(temperatures)  # the largest logit of all is to win
            log_tasks = torch.log_softmax(peaks, 1)
        heads, passes = tuple(seen.heads), len(self.passes)
        return Observation(self.tasks, heads, temperatures, log_tasks, judged.p_values, passes=passes)

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
    room = RmnSettings.model_validate(definition.settings).room
    return {layer: max(1, math.ceil(room * units)) for layer, units in budget.items()}


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


def _moved(shared: SharedNetwork, method: Rmn) -> tuple[Engram, ...]:
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
