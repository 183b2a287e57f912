"""The learner's public face: a model that learns task after task and forgets none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engram.answers import Answer, Observation, TaskInfo
from engram.backbones import layout_of
from engram.capacity import LayerCapacity, budget_of, candidate_units, capacity
from engram.commons import Commons
from engram.data import Examples
from engram.definition import Definition
from engram.errors import InvalidDefinition, NothingLearned, TaskExists, UnknownLabel
from engram.learning import Learner, LearningReport
from engram.network import Network, pixels
from engram.options import LearnOptions
from engram.progress import Progress, Reporter
from engram.recogniser import Recogniser
from engram.relevance import Explainer, Heatmap
from engram.sums import Sums

if TYPE_CHECKING:
    from engram.training import OptimiserFactory

DEFAULT_COMPOSITE = "epsilon_plus_flat"


class Memory:
    """A stack of engrams with a recogniser over them.

    Learning appends one engram; nothing is ever edited, so every earlier answer stays the same, bit for bit (same
    device, batch shape and thread count). Everything but `learn` and `raise_budget` only reads, and may be called from
    many threads at once.
    """

    def __init__(
        self,
        definition: Definition,
        network: Network,
        commons: Commons,
        recogniser: Recogniser,
        sums: Sums | None,
        budget: Mapping[str, int],
    ) -> None:
        self.definition = definition
        self.network = network.eval()
        self.commons = commons.eval()
        self.recogniser = recogniser
        self.sums = sums
        self.budget = dict(budget)
        self._explainer = Explainer(network.stack)

    @classmethod
    def create(cls, definition: Definition) -> Memory:
        """A model that has learned nothing yet.

        Raises
        ------
        InvalidDefinition
        """
        layout = layout_of(definition)
        commons = Commons(definition)
        return cls(
            definition,
            Network(layout),
            commons,
            Recogniser.empty(commons.features),
            Sums.empty(commons.features),
            budget_of(layout, definition.budget),
        )

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        """The learned tasks, oldest first."""
        return tuple(TaskInfo(engram.task, engram.classes, dict(engram.units)) for engram in self.network.stack)

    @property
    def device(self) -> torch.device:
        return self.commons.filters.weight.device

    def to(self, device: torch.device | str) -> Memory:
        """Move everything to a device, in place."""
        self.network.to(device)
        self.commons.to(device)
        self._explainer = Explainer(self.network.stack)
        return self

    def admit(self, task: str) -> None:
        """Refuse what could not be learned, as far as that is known before looking at the data.

        Raises
        ------
        TaskExists
            when the name is taken.
        CapacityExhausted
            when some layer has too few units left.
        """
        if any(info.name == task for info in self.tasks):
            raise TaskExists(f"the model already has a task {task!r}")
        candidate_units(self.network.layout, self.budget, self.network.stack)

    def learn(
        self,
        task: str,
        examples: Examples,
        options: LearnOptions | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
        optimiser: OptimiserFactory | None = None,
    ) -> LearningReport:
        """Learn one task and append its engram. On any error the model is as it was.

        Parameters
        ----------
        examples
            uint8 images of the model's size, with labels; kept only while learning.
        progress, cancel
            Called, and asked, at every step.
        optimiser
            Makes the optimiser from the new engram's parameters; by default as `options` say.

        Raises
        ------
        TaskExists, CapacityExhausted, ExamplesError, Cancelled, AccuracyTooLow, RecognitionTooLow
        """
        self.admit(task)
        examples.check()
        shape = self.definition.input
        assert examples.images.shape[1:] == (shape.channels, shape.height, shape.width), (
            f"images are {tuple(examples.images.shape[1:])}, the model takes "
            f"{(shape.channels, shape.height, shape.width)}; decode them with engram.images.decode"
        )
        assert self.sums is not None, "this model was restored without its sums, which learning needs"
        options = options or LearnOptions()
        learner = Learner(
            self.network,
            self.commons,
            self.recogniser,
            self.sums,
            self.budget,
            _task_seed(self.definition.seed, len(self.tasks), options.seed),
            options,
            Reporter(progress, cancel),
            self.device,
            optimiser,
        )
        learned = learner.learn(task, examples)
        engram = learned.engram.to(self.device)
        self.network = self.network.appended(engram).eval()
        self.recogniser, self.sums = learned.recogniser, learned.sums
        self._explainer = Explainer(self.network.stack)
        return learned.report

    @torch.no_grad()
    def observe(self, images: Tensor) -> Observation:
        """One pass over (B, C, H, W) uint8 images: every task's logits, and which task each image belongs to.

        Raises
        ------
        NothingLearned
        """
        tasks = self.tasks
        if not tasks:
            raise NothingLearned("the model has learned no task yet")
        given = pixels(images.to(self.device))  # (B, C, H, W)
        outputs = self.network(given)
        prefixes = [features.cpu() for features, _ in outputs]  # (B, F_t) each
        scores = self.recogniser.class_scores(self.commons(given).cpu())  # (B, classes of all tasks)
        distances = self.recogniser.distances(prefixes)  # (B, T)
        return Observation(
            tasks,
            tuple(logits.cpu() for _, logits in outputs),
            torch.stack([reading.temperature for reading in self.recogniser.readings]),
            self.recogniser.log_probabilities(scores, distances),
            self.recogniser.p_values(distances),
        )

    def predict(self, images: Tensor, task: str | None = None, top_k: int = 1) -> list[Answer]:
        """Answers for (B, C, H, W) uint8 images, recognising the task unless it is given.

        Raises
        ------
        NothingLearned, UnknownTask
        """
        return self.observe(images).answers(task, top_k)

    def explain(
        self, image: Tensor, *, target: str | None = None, task: str | None = None, composite: str = DEFAULT_COMPOSITE
    ) -> Heatmap:
        """The heatmap of one logit for a (C, H, W) uint8 image.

        Parameters
        ----------
        target
            The label to explain; by default the one that is answered.
        task
            The task whose head is explained; by default the recognised one, or the only one that has `target`.

        Raises
        ------
        NothingLearned, UnknownTask, UnknownLabel, UnknownComposite
        """
        observation = self.observe(image[None])
        owner, label = self._target(observation, target, task)
        return self._explainer.explain(image, owner, label, composite)

    def _target(self, observation: Observation, target: str | None, task: str | None) -> tuple[int, int]:
        if target is None:
            answer = observation.answers(task)[0]
            owner = observation.index(answer.task)
            return owner, self.tasks[owner].classes.index(answer.label)
        holders = [position for position, info in enumerate(self.tasks) if target in info.classes]
        if task is not None:
            owner = observation.index(task)
        elif not holders:
            raise UnknownLabel(f"no task has a label {target!r}")
        else:
            owner = max(holders, key=lambda position: float(observation.log_tasks[0, position]))
        if owner not in holders:
            raise UnknownLabel(f"task {self.tasks[owner].name!r} has no label {target!r}")
        return owner, self.tasks[owner].classes.index(target)

    def capacity(self) -> list[LayerCapacity]:
        """Budget, owned and free units of each layer."""
        return capacity(self.network.layout, self.budget, self.network.stack)

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        """Widen the network for tasks to come; nothing that exists is touched.

        Parameters
        ----------
        budget
            As in the definition: a multiple of one task's units, or numbers for named layers (the others keep theirs).

        Raises
        ------
        InvalidDefinition
            for an unknown layer, or less than the budget there is.
        """
        named = {**self.budget, **budget} if isinstance(budget, Mapping) else budget
        raised = budget_of(self.network.layout, named)
        for layer, units in raised.items():
            if units < self.budget[layer]:
                raise InvalidDefinition(f"layer {layer} has a budget of {self.budget[layer]}; it can only be raised")
        self.budget = raised

    def save(self, folder: Path | str) -> None:
        """Write the model into a folder: one safetensors file per engram, recogniser, sums, and a manifest."""
        from engram.snapshot import save  # snapshot builds memories, so it imports this module

        save(self, Path(folder))

    @classmethod
    def load(cls, folder: Path | str) -> Memory:
        """Rebuild a model from the files that `save` wrote.

        Raises
        ------
        SnapshotError
            naming the file that is missing, damaged, or of an unknown format.
        """
        from engram.snapshot import load

        return load(Path(folder))


def _task_seed(model: int, number: int, options: int) -> int:
    """One seed from three, well apart for neighbouring values (splitmix64's multipliers)."""
    mixed = (model * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + options * 0x94D049BB133111EB) % 2**64
    return (mixed ^ (mixed >> 31)) % 2**63
