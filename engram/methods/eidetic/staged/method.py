"""EideticNet with staged answers: an image is shown to the tasks that contend for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece, bytes_of
from engram.config.definition import Definition
from engram.config.eidetic import EideticSettings
from engram.context import LearnContext
from engram.data.examples import Examples
from engram.errors import AnswersOnly, DamagedSnapshot, NoNetwork, UnknownTask
from engram.explain.explainer import Explainer, Heatmap
from engram.methods.base import Method, StoredModel
from engram.methods.eidetic.staged.learning import StagedLearner
from engram.methods.eidetic.staged.served_task import ServedTask
from engram.methods.eidetic.staged.serving import Serving
from engram.methods.eidetic.staged.stored import Sums
from engram.methods.eidetic.staged.tasks import StagedTask, network_of
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, candidate_units, capacity, raised
from engram.nn.commons import Commons, commons_of
from engram.nn.network import Network, pixels
from engram.nn.serialization import dump_commons, load_commons
from engram.nn.shapes import SHAPES
from engram.recognition.predictions import Observation
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.training.report import LearningReport


class StagedEidetic(Method):
    """A stack of small engrams, of which an image is shown to those that contend for it; exact for ever."""

    lazy: ClassVar[bool] = True
    least_classes: ClassVar[int] = 1
    shapes: ClassVar[tuple[int, ...]] = SHAPES
    """Batch sizes that answers are computed in."""

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        commons: Commons,
        recogniser: StagedRecogniser,
        tasks: Sequence[StagedTask],
        sums: Sums | None,
    ) -> None:
        super().__init__(definition, budget)
        self.settings = EideticSettings.model_validate(definition.settings)
        self.layout = layout_of(definition)
        self.commons = commons
        self.recogniser = recogniser
        self.staged = tuple(tasks)
        self.sums = sums
        self._serving: Serving | None = None
        self._alone: dict[str, ServedTask] = {}
        self._explainer: Explainer | None = None

    @classmethod
    def create(cls, definition: Definition) -> Self:
        cls.check(definition)
        budget = budget_of(layout_of(definition), definition.budget)
        commons = commons_of(definition).eval()
        return cls(definition, budget, commons, StagedRecogniser.empty(commons.features), (), Sums((), ()))

    @classmethod
    def restore(
        cls,
        definition: Definition,
        engrams: Sequence[bytes | Piece],
        recogniser: bytes,
        kept: Sequence[bytes | Piece] | None,
        budget: Mapping[str, int],
        reuse: Self | None = None,
    ) -> Self:
        if not engrams:
            raise DamagedSnapshot("a model has at least its commons")
        layout, known = layout_of(definition), StagedRecogniser.load(recogniser)
        if len(engrams) != 1 + 2 * len(known.tasks):
            raise DamagedSnapshot("the recogniser belongs to other tasks than the engrams do")
        commons = load_commons(definition, bytes_of(engrams[0])).eval()
        tasks = [
            StagedTask(task, layout, (engrams[1 + 2 * number], engrams[2 + 2 * number]))
            for number, task in enumerate(known.tasks)
        ]
        if reuse is not None:
            there = {task.name: task for task in reuse.staged}
            tasks = [task.sharing(there[task.name]) if task.name in there else task for task in tasks]
        names = [task.name for task in tasks]
        model = cls(definition, budget, commons, known, tasks, None if kept is None else Sums.of(names, kept))
        if kept is None:
            model.serving()
        return model

    def dump(self) -> StoredModel:
        pieces = [piece for task in self.staged for piece in task.stored]
        return StoredModel((dump_commons(self.commons), *pieces), self.recogniser.dump(), self.required_sums().pieces)

    def required_sums(self) -> Sums:
        """The sums; raises AnswersOnly where the model was restored without them."""
        if self.sums is None:
            raise AnswersOnly("the model was restored without the sums of its tasks, which learning and saving need")
        return self.sums

    def serving(self) -> Serving:
        """What answers, with every task read; raises DamagedSnapshot, UnsupportedFormat."""
        if self._serving is None:
            network = network_of(self.layout, self.staged, [task.name for task in self.staged])
            network.to(self.device)
            self._serving = Serving.of(self.commons, self.recogniser, self.staged, network, self.settings)
        return self._serving

    def served(self, task: str) -> ServedTask:
        """What answers for one task, with no other read but those that it reads.

        Raises
        ------
        UnknownTask, DamagedSnapshot, UnsupportedFormat
        """
        if self._serving is not None:
            return self._serving.served[self._number(task)]
        if task not in self._alone:
            number = self._number(task)
            network = network_of(self.layout, self.staged, [task])
            network.to(self.device)
            self._alone[task] = ServedTask.of(self.staged[number], network)
        return self._alone[task]

    def _number(self, task: str) -> int:
        for number, info in enumerate(self.tasks):
            if info.name == task:
                return number
        raise UnknownTask(f"the model has no task {task!r}")

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.staged if task.known.network and task.loaded)

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return self.recogniser.infos

    @property
    def exact(self) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return self.commons.device

    def to(self, device: torch.device | str) -> None:
        self.commons.to(device)
        for task in self.staged:
            if task.loaded and task.engram is not None:  # those that are read later are moved then
                task.engram.to(device)
        self._serving, self._alone, self._explainer = None, {}, None

    def admit(self, task: str) -> None:
        super().admit(task)
        candidate_units(self.layout, self.budget, {info.name: info.units for info in self._with_networks()})

    def _with_networks(self) -> list[TaskInfo]:
        return [task.info for task in self.recogniser.tasks if task.network]

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        sums = self.required_sums()
        learner = StagedLearner(
            self.commons, self.recogniser, self.staged, sums, self.budget, self.settings, Network(self.layout), context
        )
        learned = learner.learn(task, examples)
        self.commons, self.recogniser, self.staged = learned.commons, learned.recogniser, learned.tasks
        self.sums, self._serving, self._alone, self._explainer = learned.sums, None, {}, None
        return learned.report

    def observe(self, images: Tensor) -> Observation:
        return self.observe_for(images, None, None)

    @torch.no_grad()
    def observe_for(self, images: Tensor, task: str | None, contenders: int | Literal["all"] | None) -> Observation:
        if task is None:
            return self.serving().contest(images, contenders)
        if self._serving is not None:
            return self._serving.single(images, task)
        served = self.served(task)
        given, common = self._pixels_and_features(images)
        unusual = self.recogniser.stage_one()(common).unusual[:, self._number(task)]
        return served.observed(given, common, unusual)

    @torch.no_grad()
    def logits_in_shape(self, task: str, images: Tensor, shape: int) -> Tensor:
        """Logits (N, classes) of one task, computed in batches of one of `shapes`."""
        return self._logits([task], images, shape)[0]

    @torch.no_grad()
    def logits_by_shape(self, tasks: Sequence[str], images: Tensor) -> dict[str, dict[int, Tensor]]:
        found = {shape: self._logits(tasks, images, shape) for shape in self.shapes}
        return {task: {shape: logits[at] for shape, logits in found.items()} for at, task in enumerate(tasks)}

    def _logits(self, tasks: Sequence[str], images: Tensor, shape: int) -> list[Tensor]:
        """Of each task (N, classes), in batches of one shape; all of them read the same features of the commons."""
        parts = [self._pixels_and_features(part) for part in torch.split(images, shape)]
        return [torch.cat([self.served(task).logits(*part) for part in parts]) for task in tasks]

    def _pixels_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) float32 on the device, and (B, F) on the CPU, of images (B, C, H, W) uint8."""
        given = pixels(images.to(self.device))
        return given, self.commons(given).cpu()

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        if self._explainer is None:
            self._explainer = Explainer(self.serving().network.stack, self.commons)
        if self.serving().served[owner].engram is None:
            name = self.tasks[owner].name
            raise NoNetwork(f"task {name!r} has one class and no network of its own: there is no logit to explain")
        names = [engram.task for engram in self.serving().network.stack]
        return self._explainer.explain(image, names.index(self.tasks[owner].name), target, composite)

    def capacity(self) -> list[LayerCapacity]:
        owned = {info.name: {layer: info.units.get(layer, 0) for layer in self.layout.layers} for info in self.tasks}
        return capacity(self.layout, self.budget, owned)

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        self.budget = raised(self.layout, self.budget, budget)
