"""The interface of every method: learn tasks one after another, answer, and be stored."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from engram.checkpointing.pieces import Piece
from engram.config.definition import Definition
from engram.config.engines import FIRST_PRECISION, ONNX_RUNTIME
from engram.config.options import LearnOptions
from engram.context import LearnContext
from engram.data.examples import ClassesNeeded, Examples
from engram.errors import (
    AccuracyTooLow,
    InvalidDefinition,
    NotExportable,
    RecallTooLow,
    RecognitionTooLow,
    TaskExists,
    UnknownTask,
)
from engram.explain.explainer import Heatmap
from engram.explain.rules import DEFAULT_COMPOSITE
from engram.nn.capacity import LayerCapacity, TaskInfo
from engram.nn.commons import Commons
from engram.nn.pretrained.network import built_with
from engram.nn.runtimes import RUNTIMES
from engram.recognition.predictions import Observation, explained
from engram.recognition.recogniser import Recogniser
from engram.recognition.state import RecogniserState
from engram.runtime import environment
from engram.training.report import LearningReport


@dataclass(frozen=True)
class StoredModel:
    """A model as bytes; equal models give equal bytes."""

    engrams: tuple[bytes | Piece, ...]
    """What answering needs, in an order of the method's own. What a method never changes again it repeats byte for
    byte, so that it is stored once. What was restored as a piece and not read is given as that piece again."""
    recogniser: bytes
    """What recognises the task; it may change whole with every task."""
    kept: tuple[bytes | Piece, ...]
    """What only learning needs."""


class Method(ABC):
    """A continual-learning method: how tasks are learned, answered and stored.

    `learn` and `raise_budget` change the model by giving its attributes other values, never by changing what these
    hold; on any error they leave it as it was. All else but `to` and `become` only reads, and may be called from many
    threads at once. Every method answers with an `Observation`: logits for each task's own classes, and the probability
    of each task.
    """

    retentions: ClassVar[frozenset[str]] = frozenset({"none"})
    """What the method can be told to keep of the training images."""

    backbones: ClassVar[frozenset[str]] = frozenset({"mlp", "cnn", "resnet18", "resnet50", "vgg11", "vgg16"})
    """The backbones it is defined for."""

    lazy: ClassVar[bool] = False
    """Whether `restore` takes engrams, and what is kept, as pieces, and reads of them what it needs when it does."""

    least_classes: ClassVar[int] = 2
    """How many classes a task has at least."""

    shapes: ClassVar[tuple[int, ...]] = ()
    """Numbers of images that answers of a given task are computed in, where an image's logits depend on nothing else:
    not on its neighbours, nor on its row. Nothing where they do."""

    moves: ClassVar[bool] = False
    """Whether a service may have it answer on another device than the processor."""

    def __init__(self, definition: Definition, budget: Mapping[str, int]) -> None:
        self.definition = definition
        self.budget = dict(budget)

    def current(self) -> Self:
        """The model as it is now, which stays so whatever this one learns."""
        return copy.copy(self)

    def become(self, other: Self) -> None:
        """Take over all that another one holds, in one assignment, so that `current` gives all of it or nothing."""
        self.__dict__ = other.__dict__

    def joining(self, tasks: Sequence[TaskInfo]) -> Self:
        """The model as it is now, to answer with classes of one label joined as they are called here, if it joins any.

        Parameters
        ----------
        tasks
            All that were learned, with other names.
        """
        return self.current()

    @classmethod
    def check(cls, definition: Definition) -> None:
        """Refuse, by name, what this method cannot do.

        Raises
        ------
        InvalidDefinition
        """
        if definition.backbone not in cls.backbones:
            known = ", ".join(sorted(cls.backbones))
            raise InvalidDefinition(
                f"the method {definition.method} has no backbone {definition.backbone!r}; it has {known}"
            )
        if definition.retention not in cls.retentions:
            known = ", ".join(sorted(cls.retentions))
            raise InvalidDefinition(
                f"the method {definition.method} has no retention {definition.retention!r}; it has {known}"
            )

    def plain(self) -> tuple[nn.Module, dict[str, object]]:
        """The version as a module of ordinary operations, images uint8 (B, C, H, W) -> a dictionary of tensors, and
        what the numbers in these stand for.

        Its answers are those of the version but for rounding.

        Raises
        ------
        NotExportable
        """
        kind = f"method {self.definition.method} with recipe {self.definition.recipe}"
        raise NotExportable(f"models of the {kind} cannot be written as plain modules")

    @classmethod
    @abstractmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        """A model that has learned nothing yet.

        Parameters
        ----------
        weights
            Of the networks that the user brought, in the order of the definition, for methods that take any.

        Raises
        ------
        InvalidDefinition
        """

    @classmethod
    @abstractmethod
    def restore(
        cls,
        definition: Definition,
        engrams: Sequence[bytes],
        recogniser: bytes,
        kept: Sequence[bytes] | None,
        budget: Mapping[str, int],
        reuse: Self | None = None,
    ) -> Self:
        """Rebuild a model from what `dump` gave.

        Parameters
        ----------
        kept
            None for a model that will only answer.
        reuse
            Another version of the same model, with which equal parts may be shared.

        Raises
        ------
        DamagedSnapshot, UnsupportedFormat
        """

    @abstractmethod
    def dump(self) -> StoredModel:
        """The model as bytes; raises AnswersOnly where it was restored without what only learning needs."""

    @property
    def needed_classes(self) -> ClassesNeeded:
        """How many classes a task of this model has at least, and the method that needs so many."""
        name: str = self.definition.method
        if name == "eidetic":
            which = self.definition.settings.get("reads")
            name += f" by recipe {self.definition.recipe}" if which is None else f" that reads {which}"
        return ClassesNeeded(self.least_classes, f"a task of the method {name}")

    @property
    @abstractmethod
    def tasks(self) -> tuple[TaskInfo, ...]:
        """The learned tasks, oldest first."""

    @property
    def loaded(self) -> tuple[str, ...]:
        """The tasks whose networks were read so far; all of them, unless the method is lazy."""
        return tuple(info.name for info in self.tasks)

    @property
    @abstractmethod
    def exact(self) -> bool:
        """Whether what a task answers, when it is given, can never change again."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model computes."""

    def environment(self) -> dict[str, object]:
        """What the bits of its answers depend on here; raises ArchitectureMissing, EngineMissing."""
        sources = [part.source for part in self.definition.pretrained]
        own = {} if (runtime := RUNTIMES.get(self.definition.engine)) is None else {"engine": runtime.version()}
        found: dict[str, object] = environment(
            self.device, [built_with(source) | own for source in sources if source is not None]
        )
        if self.definition.engine != ONNX_RUNTIME:  # which computes nothing but those
            found |= own
        precision = self.definition.precision
        return found if precision == FIRST_PRECISION else {**found, "precision": precision}

    @abstractmethod
    def to(self, device: torch.device | str) -> None:
        """Move everything to a device, in place."""

    def prepare(self) -> None:  # noqa: B027  # most methods have nothing to find out
        """Find out how answers are given soonest, to the same bytes; whoever serves does so before the first."""

    def adopt(self, task: str, classes: Sequence[str]) -> None:
        """Take the classifier of the first network that the user brought for the first task.

        Raises
        ------
        InvalidDefinition
            where there is no such network, it has other outputs, or the model has tasks already.
        """
        raise InvalidDefinition("there is no network with a classifier to adopt")

    def admit(self, task: str) -> None:
        """Refuse what could not be learned, as far as that is known before looking at the data.

        Raises
        ------
        TaskExists, CapacityExhausted
        """
        if any(info.name == task for info in self.tasks):
            raise TaskExists(f"the model already has a task {task!r}")

    @abstractmethod
    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        """Learn one task, which `admit` has let in.

        Parameters
        ----------
        examples
            Checked images of the model's size.
        context
            Options, seed (from the model's seed, the task's name or number and the options' seed), reporter, device,
            optimiser.

        Raises
        ------
        ExamplesError, CapacityExhausted, Cancelled, AccuracyTooLow, RecallTooLow, RecognitionTooLow
        AnswersOnly
            The model was restored without what learning needs.
        """

    @abstractmethod
    def observe(self, images: Tensor) -> Observation:
        """See (B, C, H, W) uint8 images, with at least one task learned."""

    def observe_for(self, images: Tensor, task: str | None, contenders: int | Literal["all"] | None) -> Observation:
        """As `observe`; where answers are staged, of one task, or with another bound on the tasks that are run.

        Raises
        ------
        UnknownTask
        """
        if task is not None and all(info.name != task for info in self.tasks):
            raise UnknownTask(f"the model has no task {task!r}")
        return self.observe(images)

    def logits_in_shape(self, task: str, images: Tensor, shape: int) -> Tensor:
        """(B, classes) float32: one task's raw logits of (B, C, H, W) uint8 images, computed `shape` at a time.

        Raises
        ------
        UnknownTask
        """
        return torch.cat([self.observe_for(part, task, None).logits(task) for part in torch.split(images, shape)])

    def logits_by_shape(
        self, tasks: Sequence[str], images: Tensor, shapes: Sequence[int] | None = None
    ) -> dict[str, dict[int, Tensor]]:
        """For each task, and each of `shapes` or of those given, the logits that `logits_in_shape` gives."""
        chosen = self.shapes if shapes is None else shapes
        return {task: {shape: self.logits_in_shape(task, images, shape) for shape in chosen} for task in tasks}

    @torch.no_grad()
    def explained(self, image: Tensor, target: str | None, task: str | None) -> tuple[int, int]:
        """The task and the class whose logit is explained of an image (C, H, W) uint8, as `Memory.explain` takes them.

        The image is shown to no more tasks than it takes to tell.

        Raises
        ------
        NothingLearned, UnknownTask, UnknownLabel
        """
        return explained(self.tasks, lambda only: self.observe_for(image[None], only, None), target, task)

    @abstractmethod
    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        """The heatmap of one logit for a (C, H, W) uint8 image.

        Parameters
        ----------
        owner
            Index of the task whose logit is explained.
        target
            Index of the class among that task's.

        Raises
        ------
        UnknownComposite, NoNetwork
        """

    def suited_composite(self) -> str:
        """The composite that heatmaps are made by unless another is asked for."""
        return "epsilon_plus" if self.definition.backbone == "mlp" else DEFAULT_COMPOSITE

    @abstractmethod
    def capacity(self) -> list[LayerCapacity]:
        """Budget, owned and free units of each layer."""

    @abstractmethod
    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        """Widen the network for tasks to come; nothing that exists is touched.

        Raises
        ------
        InvalidDefinition
            for an unknown layer, or less than there is, or when the method's network has a fixed size.
        """


class RecognisingMethod(Method):
    """A method whose tasks are told apart by the shared recogniser over the commons."""

    def __init__(self, definition: Definition, budget: Mapping[str, int], state: RecogniserState) -> None:
        super().__init__(definition, budget)
        self.state = state

    @property
    def commons(self) -> Commons:
        """The fixed features of block 0."""
        return self.state.commons

    @property
    def recogniser(self) -> Recogniser:
        """What tells tasks apart."""
        return self.state.recogniser

    @property
    def device(self) -> torch.device:
        return self.state.device


def expect_recognised(report: LearningReport, options: LearnOptions) -> None:
    """Refuse a task that the recogniser does not find again as often as was asked for, and warn of one seldom found.

    Raises
    ------
    RecognitionTooLow
    """
    if report.recognised < options.min_recognised:
        raise RecognitionTooLow(
            f"{report.recognised:.1%} of the held-out images are given to this task, under the "
            f"{options.min_recognised:.1%} that were asked for"
        )
    report.heed_recognition()


def expect_accurate(report: LearningReport, options: LearnOptions) -> None:
    """Refuse a task that, or a class of which, is not answered right as often as was asked for.

    Raises
    ------
    AccuracyTooLow, RecallTooLow
    """
    if report.accuracy["kept"] < options.min_accuracy:
        raise AccuracyTooLow(
            f"{report.accuracy['kept']:.1%} of the held-out images are answered right, under the "
            f"{options.min_accuracy:.1%} that were asked for"
        )
    name, worst = min(report.recalls.items(), key=lambda each: each[1].recall)
    if worst.recall < options.min_recall:
        raise RecallTooLow(
            f"{worst.recall:.1%} of the held-out images of {name!r} are answered right, under the "
            f"{options.min_recall:.1%} that were asked for of every class"
        )
