"""Memory: a model that learns task after task and forgets none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from engram.checkpointing.checkpoints import Checkpoints
from engram.checkpointing.journal import Journal
from engram.checkpointing.pieces import Piece, bytes_of, read_all
from engram.checkpointing.progress import Progress, Reporter
from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.config.seeds import number_of, task_seed
from engram.context import LearnContext, OptimiserFactory, check_device, first_line
from engram.data.containers import as_path
from engram.data.examples import Examples
from engram.data.images import check_image, check_images
from engram.errors import (
    ExamplesError,
    InputError,
    InvalidDefinition,
    InvalidOptions,
    NothingLearned,
    require_type,
)
from engram.explain.explainer import Heatmap
from engram.methods import Method, method_of
from engram.nn.backbones import layout_of
from engram.nn.capacity import LayerCapacity, TaskInfo, check_weights
from engram.nn.commons.naming import over_networks
from engram.nn.pretrained.backbone import Backbone
from engram.recognition.predictions import Observation, Prediction
from engram.snapshot import Parts, read, write
from engram.training.class_recall import expect_measurable
from engram.training.mixed_precision import expect_mixable
from engram.training.report import LearningReport


class Memory:
    """A model that learns by the method its definition names.

    With an exact method, every earlier answer stays the same, bit for bit (same device, batch shape and thread count).
    Everything but `learn`, `raise_budget` and `to` only reads, and may be called from many threads at once, also while
    a task is learned: each call answers by the model as it was before, or as it is after.
    """

    def __init__(self, method: Method) -> None:
        require_type("the method of a model, which Memory.create makes,", method, Method, InvalidDefinition)
        self.method = method

    @classmethod
    def create(cls, definition: Definition, backbones: Mapping[str, Backbone] | None = None) -> Memory:
        """A model that has learned nothing yet; raises InvalidDefinition, UnsuitedSize.

        Parameters
        ----------
        backbones
            The networks that a pretrained commons names.
        """
        require_type("the definition", definition, Definition, InvalidDefinition)
        settled, weights = over_networks(definition, backbones or {})
        method = method_of(settled)
        method.check(settled)
        layout = layout_of(settled)
        check_weights(layout, layout.widths)
        return cls(method.create(settled, weights))

    @property
    def definition(self) -> Definition:
        return self.method.definition

    @property
    def budget(self) -> dict[str, int]:
        """Units per layer for all tasks together."""
        return self.method.budget

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        """The learned tasks, oldest first."""
        return self.method.current().tasks

    @property
    def exact(self) -> bool:
        """Whether what a task answers, when it is given, can never change again."""
        return self.method.exact

    @property
    def device(self) -> torch.device:
        return self.method.device

    def to(self, device: torch.device | str) -> Memory:
        """Move everything to a device, in place. On any error the model stays on the device where it was.

        Raises
        ------
        InputError
            for what names no device, a device that PyTorch cannot use here, or one that cannot hold the model.
        RuntimeError, MemoryError
            PyTorch's own, where a device that is there fails or is full.
        """
        check_device(device)
        before = self.device
        try:
            self.method.to(device)
        except Exception as error:
            self.method.to(before)
            if isinstance(error, TypeError | NotImplementedError):  # such as float64, which some devices have not
                raise InputError(f"the model cannot be moved to {device!r}: {first_line(error)}") from error
            raise
        return self

    def adopt(self, task: str, classes: Sequence[str]) -> None:
        """Answer, as the first task, what the commons' first network answers; raises as `Method.adopt`, InputError."""
        require_type("the name of a task", task, str, InputError)
        adopted = self.method.current()
        adopted.adopt(task, classes)
        self.method.become(adopted)

    def admit(self, task: str) -> None:
        """Refuse what could not be learned, as far as that is known before looking at the data.

        Raises
        ------
        TaskExists, CapacityExhausted
            when the name is taken, and when some layer has too few units left.
        InputError
            when the name is no string.
        """
        require_type("the name of a task", task, str, InputError)
        self.method.admit(task)

    def learn(
        self,
        task: str,
        examples: Examples,
        options: LearnOptions | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
        optimiser: OptimiserFactory | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> LearningReport:
        """Learn one task. On any error the model is as it was.

        Parameters
        ----------
        examples
            uint8 images of the model's size, with labels; kept only while learning, unless the model's retention says
            otherwise.
        progress, cancel
            Called, and asked, at every step.
        optimiser
            Makes the optimiser from the parameters that are trained; by default as `options` say.
        checkpoints
            Where to leave what was done from time to time, and to go on from when an earlier call was broken off: of
            the same task from the same images, by the same code on a machine that computes alike, on an equal model
            (which is for the caller to see to). What is learned is the same as if it had never been broken off.

        Raises
        ------
        TaskExists, CapacityExhausted, InputError
            As `admit`.
        ExamplesError
            As `Examples.check`, for images of another size than the model's, and too few for the option `min_recall`.
        InvalidOptions
            As its options say, and where `progress`, `cancel`, `optimiser` or `checkpoints` are of another type.
        AnswersOnly
            where the model was restored for answering alone.
        PrecisionMissing, Cancelled, AccuracyTooLow, RecallTooLow, RecognitionTooLow
        """
        self.admit(task)
        self._check(examples)
        options = LearnOptions() if options is None else options
        require_type("options", options, LearnOptions, InvalidOptions)
        expect_measurable(examples, options, self.definition.recipe)
        expect_mixable(self.definition, options, self.device)
        for name, function in (("progress", progress), ("cancel", cancel), ("optimiser", optimiser)):
            if function is not None and not callable(function):
                raise InvalidOptions(f"{name} is a function, not of type {type(function).__name__}")
        if checkpoints is not None:
            require_type("checkpoints", checkpoints, Checkpoints, InvalidOptions)
        named = self.definition.recipe > 2
        number = number_of(task) if named else len(self.tasks)  # a task's name does not tell how many came before it
        seed = task_seed(self.definition.seed, number, options.seed)
        journal = Journal(checkpoints, self._subject(task, examples, options, seed) if checkpoints else None)
        numbers = self.definition.recipe, self.definition.learning
        context = LearnContext(options, seed, Reporter(progress, cancel, journal), self.device, optimiser, *numbers)
        learned = self.method.current()
        report = learned.learn(task, examples, context)
        self.method.become(learned)
        return report

    def _check(self, examples: Examples) -> None:
        """Refuse what is no examples for this model; raises ExamplesError."""
        require_type("examples", examples, Examples, ExamplesError)
        examples.check(self.method.needed_classes)
        shape = self.definition.input
        if examples.images.shape[1:] != (shape.channels, shape.height, shape.width):
            raise ExamplesError(
                f"images are {tuple(examples.images.shape[1:])}, the model takes "
                f"{(shape.channels, shape.height, shape.width)}; decode them with engram.data.images.decode"
            )

    def _subject(self, task: str, examples: Examples, options: LearnOptions, seed: int) -> dict[str, object]:
        """What a checkpoint has to be of, but for the model's own weights."""
        return {
            "definition": self.definition.stored(),
            "budget": self.budget,
            "tasks": [info.name for info in self.tasks],
            "task": task,
            "examples": examples.digest(),
            "options": options.model_dump(mode="json"),
            "seed": seed,
            "environment": self.method.environment(),
        }

    @torch.no_grad()
    def observe(
        self, images: Tensor, task: str | None = None, contenders: int | Literal["all"] | None = None
    ) -> Observation:
        """What the model makes of (B, C, H, W) uint8 images: logits, and the probability that they are of each task.

        Parameters
        ----------
        task
            The only one that is asked for, where it is given; a model whose answers are staged runs no other.
        contenders
            As the setting of that name, in its place; a model whose answers are not staged runs all tasks in any case.

        Raises
        ------
        NothingLearned, UnknownTask
        InputError
            for `contenders` that are no whole number from 1 to 64, nor `all`.
        ImageError
            for images of another size or dtype than the model takes, or what is no tensor.
        """
        method = self.method.current()
        if not method.tasks:
            raise NothingLearned("the model has learned no task yet")
        check_images(images, method.definition.input)
        if contenders is not None and contenders != "all" and not (type(contenders) is int and 1 <= contenders <= 64):
            raise InputError(f"contenders are a whole number from 1 to 64, or 'all', not {contenders!r}")
        return method.observe_for(images, task, contenders)

    def predict(
        self,
        images: Tensor,
        task: str | None = None,
        top_k: int = 1,
        contenders: int | Literal["all"] | None = None,
    ) -> list[Prediction]:
        """Predictions for (B, C, H, W) uint8 images, recognising the task unless it is given.

        Raises
        ------
        NothingLearned, ImageError, UnknownTask
            As `observe`.
        InputError
            Also for a `top_k` that is no whole number, or under 1.
        """
        return self.observe(images, task, contenders).predictions(task, top_k)

    def explain(
        self, image: Tensor, *, target: str | None = None, task: str | None = None, composite: str | None = None
    ) -> Heatmap:
        """The heatmap of one logit for a (C, H, W) uint8 image.

        Parameters
        ----------
        target
            The label to explain; by default the one that is answered.
        task
            The task whose head is explained; by default the recognised one, or the only one that has `target`.
        composite
            One of `engram.explain.rules.COMPOSITES`, or of what fits the pretrained networks; by default what suits.

        Raises
        ------
        NothingLearned, UnknownTask, UnknownLabel, UnknownComposite, NoNetwork
        ImageError
            for an image of another size or dtype than the model takes.
        """
        method = self.method.current()
        check_image(image, method.definition.input)
        owner, label = method.explained(image, target, task)
        return method.explain(image, owner, label, composite or method.suited_composite())

    def capacity(self) -> list[LayerCapacity]:
        """Budget, owned and free units of each layer."""
        return self.method.current().capacity()

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        """Widen the network for tasks to come; nothing that exists is touched.

        Parameters
        ----------
        budget
            As in the definition: a multiple of one task's units, or numbers for named layers (the others keep theirs).

        Raises
        ------
        InvalidDefinition
            for an unknown layer, what is no number of units, or less than the budget there is.
        """
        if isinstance(budget, Mapping) and (
            strange := [layer for layer in budget if not isinstance(cast(object, layer), str)]
        ):
            raise InvalidDefinition(f"a budget names its layers by strings, not {strange[0]!r}")
        wider = self.method.current()
        try:
            wider.raise_budget(budget)
        except OverflowError as error:
            raise InvalidDefinition("the budget must be a finite number of units") from error
        self.method.become(wider)

    def save(self, folder: Path | str) -> None:
        """Write the model into a folder: safetensors files, and a manifest that names them.

        Raises
        ------
        InputError
            when the folder is no path.
        AnswersOnly
            where the model was restored for answering alone.
        OSError
            where the folder cannot be written.
        """
        memory = Memory(self.method.current())
        write(dump(memory), memory.tasks, as_path("the folder", folder))

    @classmethod
    def load(cls, folder: Path | str) -> Memory:
        """Rebuild a model from the files that `save` wrote; all are read, whatever becomes of the folder later.

        Raises
        ------
        SnapshotError
            naming the file that is missing, damaged, or of an unknown format.
        InputError
            when the folder is no path.
        """
        parts = read(as_path("the folder", folder))
        return restore(parts.definition, read_all(parts.engrams), parts.recogniser, read_all(parts.kept), parts.budget)


def dump(memory: Memory) -> Parts:
    """A model as bytes; equal models give equal bytes.

    Raises
    ------
    AnswersOnly
        where the model was restored for answering alone.
    InputError
        for what is no `Memory`.
    """
    require_type("the model", memory, Memory, InputError)
    method = memory.method.current()
    stored = method.dump()
    return Parts(method.definition, stored.engrams, stored.recogniser, stored.kept, dict(method.budget))


def restore(
    definition: Definition,
    engrams: Sequence[bytes | Piece],
    recogniser: bytes | Piece,
    kept: Sequence[bytes | Piece] | None,
    budget: Mapping[str, int],
    reuse: Memory | None = None,
) -> Memory:
    """Rebuild a model from its parts alone.

    Parameters
    ----------
    engrams, recogniser, kept
        Bytes, or pieces, which a method that is `lazy` reads when it needs them. `kept` is None for answers alone.
    reuse
        Another version of the same model, with which equal parts are shared instead of built again.

    Raises
    ------
    DamagedSnapshot, UnsupportedFormat
        Or what reading a piece raises.
    InvalidDefinition, InputError
        for what is no `Definition`, and a `reuse` that is no `Memory`.
    """
    require_type("the definition", definition, Definition, InvalidDefinition)
    if reuse is not None:
        require_type("the model to reuse", reuse, Memory, InputError)
    kind, beside = method_of(definition), None if reuse is None else reuse.method
    if not kind.lazy:
        engrams, kept = read_all(engrams), None if kept is None else read_all(kept)
    # A lazy method's own `restore` takes pieces as well.
    given, held = cast(Sequence[bytes], engrams), cast("Sequence[bytes] | None", kept)
    return Memory(kind.restore(definition, given, bytes_of(recogniser), held, budget, beside))
