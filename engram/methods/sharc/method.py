"""SHARC: a frozen backbone, and replay of masked feature maps that an associative memory completes.

After "Saliency-Guided Hidden Associative Replay for Continual Learning" (arXiv 2310.04334). The backbone is trained on
the first task, since no weights come from elsewhere; maps are masked by the saliency of their channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.config.sharc import SharcSettings
from engram.context import LearnContext
from engram.data.examples import Examples, split
from engram.errors import CapacityExhausted, DamagedSnapshot, InvalidDefinition
from engram.explain.explainer import Heatmap, TaskExplainers
from engram.methods.base import RecognisingMethod, StoredModel, expect_accurate, expect_recognised
from engram.methods.sharc.feature_maps import Classifier, FeatureMaps, joined, map_shape
from engram.methods.sharc.learner import LearnedTask, TaskLearner
from engram.methods.sharc.replay_memory import ReplayMemory, maps_per_class
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of
from engram.nn.network import Engram, pixels
from engram.recognition.predictions import Observation
from engram.recognition.state import RecogniserState, RecogniserUpdate
from engram.recognition.training import ForwardPass
from engram.training.report import LearningReport

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEAST_CLASSES = 2
"""Of the first task."""


class Sharc(RecognisingMethod):
    """A backbone frozen after the first task, and a head over all classes that replay keeps from forgetting.

    The first task owns all units there ever are, as many as one task may try; later tasks need none. With heads
    `shared`, what an earlier task answers changes a little with every task, even when it is given; with `own`, it does
    not. What is remembered takes `memory_bytes`, associative memory included; a Hopfield memory holds whole patterns
    and so saves nothing over keeping the maps themselves.
    """

    retentions: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        state: RecogniserState,
        maps: FeatureMaps | None,
        shared: Classifier | None,
        own: Sequence[Classifier],
        replay_memory: ReplayMemory | None,
    ) -> None:
        super().__init__(definition, budget, state)
        self.settings = SharcSettings.model_validate(definition.settings)
        self.layout = layout_of(definition)
        self.maps = maps
        self.shared = shared
        self.own = tuple(own)
        self.replay_memory = replay_memory
        self._explainers = self._unprepared()

    @classmethod
    def check(cls, definition: Definition) -> None:
        if definition.retention == "none":
            raise InvalidDefinition(
                f"the method {definition.method} has no retention 'none': it replays masked feature maps of the "
                "training images, which it has to keep; create the model with retention 'features'"
            )
        super().check(definition)
        try:
            maps_per_class(
                SharcSettings.model_validate(definition.settings), map_shape(layout_of(definition)), _LEAST_CLASSES
            )
        except CapacityExhausted as error:
            raise InvalidDefinition(str(error)) from error

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        cls.check(definition)
        budget = budget_of(layout_of(definition), definition.budget)
        scored = SharcSettings.model_validate(definition.settings).recognise == "commons"
        return cls(definition, budget, RecogniserState.create(definition, ridge=scored), None, None, (), None)

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
        if len(engrams) in (0, 2):
            raise DamagedSnapshot("a model is its commons, and once it has a task a backbone and a classifier")
        layout, settings = layout_of(definition), SharcSettings.model_validate(definition.settings)
        state = RecogniserState.load(definition, engrams[0], recogniser, None if kept is None else kept[2:])
        known = state.recogniser
        maps = FeatureMaps.load(layout, engrams[1]) if len(engrams) > 1 else None
        classifiers = [Classifier.load(layout, piece) for piece in engrams[2:]]
        shared, own = (classifiers[0], classifiers[1:]) if classifiers else (None, [])
        expected = len(known.profiles) if settings.heads == "own" else 0
        classes = sum(profile.classes for profile in known.profiles)
        if len(own) != expected or classes != (len(shared.classes) if shared else 0):
            raise DamagedSnapshot("the recogniser belongs to other tasks than the classifiers do")
        replay_memory = None
        if kept is not None:
            if len(kept) == 1 or (maps is None) != (not kept):
                raise DamagedSnapshot("a model that has learned keeps its maps and their memory")
            replay_memory = ReplayMemory.load(settings, kept[0], kept[1]) if kept else None
        return cls(definition, budget, state, maps, shared, own, replay_memory)

    def dump(self) -> StoredModel:
        commons, recogniser, sums = self.state.dump()
        engrams = [commons]
        if self.maps is not None and self.shared is not None:
            engrams += [self.maps.dump(), self.shared.dump(), *(head.dump() for head in self.own)]
        kept = self.replay_memory.dump() if self.replay_memory else ()
        return StoredModel(tuple(engrams), recogniser, (*kept, *sums))

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        units, none = dict(self.layout.widths), dict.fromkeys(self.layout.layers, 0)
        return tuple(
            TaskInfo(profile.task, classes, none if number else units)
            for number, (profile, classes) in enumerate(zip(self.recogniser.profiles, self._classes(), strict=True))
        )

    def _classes(self) -> Iterator[tuple[str, ...]]:
        """Each task's labels."""
        start = 0
        for profile in self.recogniser.profiles:
            assert self.shared is not None, "what recognises tasks has a classifier beside it"
            yield self.shared.classes[start : start + profile.classes]
            start += profile.classes

    @property
    def exact(self) -> bool:
        return self.settings.heads == "own"

    def to(self, device: torch.device | str) -> None:
        self.state.to(device)
        for module in (self.maps, self.shared, *self.own):
            if module is not None:
                module.to(device)
        self._explainers = self._unprepared()

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        self.state.required_sums()  # before any work is done in vain
        options, reporter = context.options, context.reporter
        train, held_out = split(examples, options.held_out, context.seed, recipe=context.recipe)
        report = LearningReport.begun(task, train, held_out, options, reporter.journal)
        learner = TaskLearner(self.layout, self.settings, train, held_out, context)
        with report.timed("training"):
            outcome = learner.learn(self.maps, self.shared, self.replay_memory)
        units = dict(self.layout.widths) if self.maps is None else dict.fromkeys(self.layout.layers, 0)
        report.candidate, report.units = units, dict(units)
        report.accuracy = {"trained": outcome.accuracy, "kept": outcome.accuracy}
        report.details = outcome.details
        own = (*self.own, outcome.own) if outcome.own is not None else self.own
        with report.timed("recognising"):
            update = self._recognising(task, learner, outcome, own)
        report.judge(update.hits, held_out)
        expect_accurate(report, options)
        report.recognised, report.answered = update.recognised, update.answered
        report.route(update.given, update.tasks)
        report.novelty = update.novelty
        expect_recognised(report, options)
        self.maps, self.shared, self.own = outcome.maps, outcome.shared, own
        self.replay_memory, self.state = outcome.replay_memory, update.state
        self._explainers = self._unprepared()
        return report

    def _recognising(
        self, task: str, learner: TaskLearner, outcome: LearnedTask, own: Sequence[Classifier]
    ) -> RecogniserUpdate:
        """The recogniser with the new task, by the head over all classes or by the commons."""
        if self.settings.recognise == "head":
            return learner.recognising(task, self.state, outcome)
        sizes = [profile.classes for profile in self.recogniser.profiles] + [len(learner.train.classes)]

        def see(images: Tensor) -> ForwardPass:
            return _see(outcome.maps, outcome.shared, own, sizes, images)[0]

        return self.state.update(task, see, learner.train, learner.held_out, learner.context)

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        assert self.maps is not None, "a task was learned"
        assert self.shared is not None, "a task was learned"
        given = pixels(images.to(self.device))  # (B, C, H, W)
        sizes = [profile.classes for profile in self.recogniser.profiles]
        seen, scores = _see(self.maps, self.shared, self.own, sizes, given)
        common = self.commons(given).cpu()  # (B, F)
        if self.settings.recognise == "commons":
            scores = self.recogniser.class_scores(common)  # (B, classes of all tasks)
        distances = self.recogniser.distances(seen.features, common)  # (B, T)
        return Observation(
            self.tasks,
            tuple(seen.heads),
            self.state.temperatures,
            self.recogniser.log_probabilities(scores, distances),
            self.recogniser.p_values(distances, scores),
            levels=self.recogniser.levels,
            vouched=self.recogniser.vouched,
            balances=self.recogniser.balances,
        )

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        return self._explainers.explain(image, owner, target, composite)

    def _unprepared(self) -> TaskExplainers:
        """Explainers of the tasks as they are now."""
        maps, shared, own, infos, profiles = self.maps, self.shared, self.own, self.tasks, self.recogniser.profiles

        def engram_of(owner: int) -> Engram:
            assert maps is not None, "a task was learned"
            assert shared is not None, "a task was learned"
            info, start = infos[owner], sum(profile.classes for profile in profiles[:owner])
            classifier, start = (own[owner], 0) if own else (shared, start)
            return joined(maps, classifier, info.name, start, info.classes)

        return TaskExplainers(engram_of)

    def capacity(self) -> list[LayerCapacity]:
        layers = []
        for layer, units in self.budget.items():
            owned = {info.name: info.units[layer] for info in self.tasks}
            layers.append(LayerCapacity(layer, units, owned, units - sum(owned.values())))
        return layers

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        raise InvalidDefinition(
            f"the method {self.definition.method} never needs more units than its first task: its network is frozen"
        )


@torch.no_grad()
def _see(
    maps: FeatureMaps, shared: Classifier, own: Sequence[Classifier], sizes: Sequence[int], images: Tensor
) -> tuple[ForwardPass, Tensor]:
    """What one pass sees, and the logits of all classes (B, K)."""
    found = maps(images)  # (B, channels, places)
    scores = shared(found).cpu()
    heads = [head(found).cpu() for head in own] if own else list(torch.split(scores, list(sizes), 1))
    return ForwardPass([maps.summary(found).cpu()] * len(sizes), heads), scores
