"""EideticNet with staged answers: an image is shown to the tasks that contend for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from engram.checkpointing.pieces import Piece, bytes_of
from engram.config.definition import OVER_NETWORK, Definition
from engram.config.eidetic import EideticSettings
from engram.context import LearnContext
from engram.data.examples import Examples
from engram.errors import (
    AnswersOnly,
    DamagedSnapshot,
    InvalidDefinition,
    NoNetwork,
    NotExportable,
    PrecisionMissing,
    TaskExists,
)
from engram.explain.explainer import Heatmap
from engram.explain.pretrained.explainer import Attribution
from engram.explain.pretrained.joined_explainer import JoinedExplainer
from engram.methods.base import Method, StoredModel
from engram.methods.eidetic.staged.adopted import alone, answers_of, in_order
from engram.methods.eidetic.staged.learner import StagedLearner
from engram.methods.eidetic.staged.plain.model import PlainModel, described
from engram.methods.eidetic.staged.prepared import Prepared
from engram.methods.eidetic.staged.serving import Serving
from engram.methods.eidetic.staged.staged_task import StagedTask
from engram.methods.eidetic.staged.stored_sums import StoredSums
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, budget_of, candidate_units, capacity, check_weights, raised
from engram.nn.closures.engines import ENGINES
from engram.nn.closures.plan import Engine
from engram.nn.commons import Commons, commons_of
from engram.nn.commons.base import Look
from engram.nn.network import Network
from engram.nn.runtimes import RUNTIMES
from engram.nn.serialization import dump_commons, load_commons
from engram.nn.shapes import SHAPES
from engram.recognition.predictions import Observation
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.runtime import has_bf16, sent
from engram.training.report import LearningReport


class StagedEidetic(Method):
    """A stack of small engrams, of which an image is shown to those that contend for it; exact for ever."""

    lazy: ClassVar[bool] = True
    moves: ClassVar[bool] = True
    least_classes: ClassVar[int] = 1
    shapes: ClassVar[tuple[int, ...]] = SHAPES
    """Batch sizes that answers are computed in."""
    backbones: ClassVar[frozenset[str]] = Method.backbones | set(OVER_NETWORK)

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        commons: Commons,
        recogniser: StagedRecogniser,
        tasks: Sequence[StagedTask],
        sums: StoredSums | None,
        weights: Sequence[bytes | Piece] = (),
    ) -> None:
        super().__init__(definition, budget)
        self.settings = EideticSettings.model_validate(definition.settings)
        self.layout = layout_of(definition, commons.maps)
        self.commons = commons
        self.weights = tuple(weights)
        """Of the networks that the user brought, in the order of the definition."""
        self.recogniser = recogniser
        self.staged = tuple(tasks)
        self.sums = sums
        self._shown: tuple[TaskInfo, ...] = ()
        self._prepared = self._prepare()

    @classmethod
    def check(cls, definition: Definition) -> None:
        super().check(definition)
        if definition.backbone == "none" and not EideticSettings.model_validate(definition.settings).read_commons:
            raise InvalidDefinition("read_commons is false, but a head with the backbone 'none' reads nothing else")

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        cls.check(definition)
        commons = commons_of(definition, weights).eval()
        commons.require()
        layout = layout_of(definition, commons.maps)
        check_weights(layout, layout.widths)
        budget = budget_of(layout, definition.budget)
        return cls(
            definition, budget, commons, StagedRecogniser.empty(commons.features), (), StoredSums((), ()), weights
        )

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
        known, first = StagedRecogniser.load(recogniser), 1 + len(definition.pretrained)
        if len(engrams) != first + 2 * len(known.tasks):
            raise DamagedSnapshot("the recogniser belongs to other tasks than the engrams do")
        weights = tuple(engrams[1:first])
        commons = load_commons(definition, bytes_of(engrams[0]), weights).eval()
        if reuse is not None:
            commons.place(reuse.device)  # where all that is shared is
        layout = layout_of(definition, commons.maps)
        tasks = [
            StagedTask(task, layout, (engrams[first + 2 * number], engrams[first + 2 * number + 1]))
            for number, task in enumerate(known.tasks)
        ]
        if reuse is not None:
            there = {task.name: task for task in reuse.staged}
            tasks = [task.sharing(there[task.name]) if task.name in there else task for task in tasks]
        names = [task.name for task in tasks]
        for task in tasks:
            task.read_what_is_there()
        sums = None if kept is None else StoredSums.of(names, kept)
        return cls(definition, budget, commons, known, tasks, sums, weights)

    def dump(self) -> StoredModel:
        pieces = [piece for task in self.staged for piece in task.stored]
        return StoredModel(
            (dump_commons(self.commons), *self.weights, *pieces), self.recogniser.dump(), self.required_sums().pieces
        )

    def required_sums(self) -> StoredSums:
        """The sums; raises AnswersOnly where the model was restored without them."""
        if self.sums is None:
            raise AnswersOnly("the model was restored without the sums of its tasks, which learning and saving need")
        return self.sums

    def serving(self) -> Serving:
        """What answers, with every task read; raises DamagedSnapshot, UnsupportedFormat."""
        return self._prepared.serving()

    def prepare(self) -> None:
        self.serving().network.prepare()

    def plain(self) -> tuple[nn.Module, dict[str, object]]:
        if not self.tasks:
            raise NotExportable("the model has learned no task yet")
        if self.device.type != "cpu":
            raise NotExportable(f"the model is on {self.device}; move it to the CPU first")
        module = PlainModel(self.serving())
        return module, described(module)

    def _prepare(self) -> Prepared:
        """What the model as it is now is to answer with; raises PrecisionMissing, EngineMissing."""
        if (runtime := RUNTIMES.get(self.definition.engine)) is not None:
            runtime.require()
        if self.definition.precision == "bf16" and not has_bf16(self.device):
            raise PrecisionMissing(f"the model computes in bf16, for which this {self.device.type} has no instructions")
        return Prepared(
            self.commons, self.recogniser, self.staged, self.layout, self.settings, self._engine, self._shown
        )

    @property
    def _engine(self) -> Engine:
        return ENGINES[self.definition.engine, self.definition.precision]

    def joining(self, tasks: Sequence[TaskInfo]) -> Self:
        joined = self.current()
        joined._shown = tuple(tasks)
        joined._prepared = joined._prepare()
        return joined

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(task.name for task in self.staged if task.known.network and task.loaded)

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        adopted = self.recogniser.adopted
        return self.recogniser.infos if adopted is None else (adopted, *self.recogniser.infos)

    def adopt(self, task: str, classes: Sequence[str]) -> None:
        source = next((part.source for part in self.definition.pretrained), None)
        if source is None or not source.outputs:
            raise InvalidDefinition("there is no network with a classifier to adopt")
        if self.tasks:
            raise InvalidDefinition("a network is adopted as the first task, and the model has tasks already")
        named = [name for name in classes if isinstance(name, str) and name and not isinstance(classes, str)]
        if not source.outputs == len(classes) == len(set(named)):
            raise InvalidDefinition(
                f"the network's {source.outputs} outputs take as many names of classes, all different"
            )
        info = TaskInfo(task, tuple(classes), {})
        self.recogniser = replace(self.recogniser, adopted=info)
        self._prepared = self._prepare()

    @property
    def exact(self) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return self.commons.device

    def to(self, device: torch.device | str) -> None:
        if self.sums is None:
            self.commons.place(torch.device(device))
        else:  # whatever learns from a network's features has those of the processor, wherever it learns
            self.commons.to(device)
        for task in self.staged:
            if task.loaded and task.engram is not None:  # those that are read later are moved then
                task.engram.to(device)
        self._prepared = self._prepare()

    def admit(self, task: str) -> None:
        if not self._is_adopted(task):
            super().admit(task)
        elif self.staged:
            raise TaskExists(
                f"the model has learned other tasks: images of {task!r}, which it adopted, come before them"
            )
        candidate_units(self.layout, self.budget, {info.name: info.units for info in self._with_networks()})

    def _with_networks(self) -> list[TaskInfo]:
        return [task.info for task in self.recogniser.tasks if task.network]

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        sums = self.required_sums()
        if adopting := self._is_adopted(task):
            examples = in_order(examples, self.tasks[0].classes)
        learner = StagedLearner(
            self.commons,
            self.recogniser,
            self.staged,
            sums,
            self.budget,
            self.settings,
            Network(self.layout, engine=self._engine),
            context,
            adopting,
            novelty=self.definition.novelty,
        )
        learned = learner.learn(task, examples)
        self.commons, self.recogniser, self.staged = learned.commons, learned.recogniser, learned.tasks
        self.sums, self._prepared = learned.sums, self._prepare()
        return learned.report

    def observe(self, images: Tensor) -> Observation:
        return self.observe_for(images, None, None)

    @torch.no_grad()
    def observe_for(self, images: Tensor, task: str | None, contenders: int | Literal["all"] | None) -> Observation:
        prepared = self._prepared
        if task is None:
            return prepared.serving().contest(images, contenders)
        if self._is_adopted(task):
            return alone(self.tasks[0], self._look(images))
        if (whole := prepared.whole) is not None:
            return whole.single(images, task)
        served = prepared.served(task)
        look = self._look(images)
        unusual = self.recogniser.stage_one(self.commons.outputs)(look.features).unusual[:, prepared.number(task)]
        return served.observed(look, unusual)

    @torch.no_grad()
    def logits_in_shape(self, task: str, images: Tensor, shape: int) -> Tensor:
        """Logits (N, classes) of one task, computed in batches of one of `shapes`."""
        return self._logits([task], images, shape)[0]

    @torch.no_grad()
    def logits_by_shape(
        self, tasks: Sequence[str], images: Tensor, shapes: Sequence[int] | None = None
    ) -> dict[str, dict[int, Tensor]]:
        look = self._look(images)  # which is the same bytes in any shape
        found = {shape: self._by_shape(tasks, look, shape) for shape in shapes or self.shapes}
        return {task: {shape: logits[at] for shape, logits in found.items()} for at, task in enumerate(tasks)}

    def _logits(self, tasks: Sequence[str], images: Tensor, shape: int) -> list[Tensor]:
        """Of each task (N, classes), in batches of one shape; all of them read the same features of the commons."""
        return self._by_shape(tasks, self._look(images), shape)

    def _by_shape(self, tasks: Sequence[str], look: Look, shape: int) -> list[Tensor]:
        parts = [look[first : first + shape] for first in range(0, len(look.features), shape)]
        return [torch.cat([self._logits_of(task, part) for part in parts]) for task in tasks]

    def _logits_of(self, task: str, look: Look) -> Tensor:
        return answers_of(look) if self._is_adopted(task) else self._prepared.served(task).logits(look)

    def _is_adopted(self, task: str) -> bool:
        """Whether a task is a network's own classifier, of whose classes no image was seen."""
        return self.recogniser.adopted is not None and self.recogniser.adopted.name == task

    def _look(self, images: Tensor) -> Look:
        return self.commons.look(sent(images, self.device))

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        info, explainer = self.tasks[owner], self._prepared.explainer()
        found = None
        if isinstance(explainer, JoinedExplainer):
            found = self._explained_head(explainer, image, info.name, target, composite)
        if found is not None:
            label = info.classes[target]
            return Heatmap(image.cpu(), found.relevance, info.name, label, found.logit, found.composite, found.goal)
        names = [engram.task for engram in self.serving().network.stack]
        if info.name not in names:
            raise NoNetwork(f"task {info.name!r} has one class and no network of its own: there is no logit to explain")
        return explainer.explain(image, names.index(info.name), target, composite)

    def _explained_head(
        self, explainer: JoinedExplainer, image: Tensor, task: str, target: int, composite: str
    ) -> Attribution | None:
        """The heatmap of a logit that no block has a part in; None where some have."""
        known = next((one for one in self.staged if one.name == task), None)
        if known is None or known.known.head == "network":
            return explainer.explain_own(image, target, composite)
        if (linear := known.linear) is None:
            return None
        return explainer.explain_head(image, linear.weight[target], linear.bias[target], composite)

    def suited_composite(self) -> str:
        """Of several commons, or of a pretrained one, by what the networks compute."""
        explainer = self._prepared.explainer()
        return explainer.offer.default if isinstance(explainer, JoinedExplainer) else super().suited_composite()

    def capacity(self) -> list[LayerCapacity]:
        owned = {info.name: {layer: info.units.get(layer, 0) for layer in self.layout.layers} for info in self.tasks}
        return capacity(self.layout, self.budget, owned)

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        self.budget = raised(self.layout, self.budget, budget)
