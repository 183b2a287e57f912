"""Observations of a staged model: what both stages say of a batch, and the predictions read from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, Self

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.nn.capacity import TaskInfo
from engram.recognition.predictions import Candidate, Observation, Prediction, check_top_k, is_known


@dataclass(frozen=True)
class Labels:
    """The labels of an answer, and which classes of which tasks have them."""

    names: tuple[str, ...]
    of_class: Tensor
    """(classes of all tasks,) int64: the label of each class."""
    classes: tuple[tuple[int, ...], ...]
    """For each label its classes, among those of all tasks."""
    tasks: tuple[int, ...]
    """For each class its task."""
    joined: bool

    @classmethod
    def of(cls, tasks: Sequence[TaskInfo], joined: bool) -> Self:
        """Those of some tasks; `joined` where classes of one name are one label."""
        owned = [(number, name) for number, info in enumerate(tasks) for name in info.classes]
        keys = [(0, name) if joined else (number, name) for number, name in owned]
        order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        held: list[list[int]] = [[] for _ in order]
        for place, key in enumerate(keys):
            held[order[key]].append(place)
        of_class = torch.tensor([order[key] for key in keys])
        names = tuple(name for _, name in order)
        return cls(names, of_class, tuple(map(tuple, held)), tuple(number for number, _ in owned), joined)

    def summed(self, joint: Tensor) -> Tensor:
        """(B, classes of all tasks) -> (B, labels)."""
        if len(self.names) == len(self.of_class):
            return joint
        return torch.zeros(len(joint), len(self.names)).index_add_(1, self.of_class, joint)

    def holders(self, place: int, joint: Sequence[float]) -> tuple[int, ...]:
        """The tasks that have a label, the most probable class first, by an image's probabilities of all classes.

        These are not looked at where a single task has the label.
        """
        held = self.classes[place]
        if len(held) == 1:
            return (self.tasks[held[0]],)
        return tuple(self.tasks[one] for one in sorted(held, key=lambda one: -joint[one]))

    def owners(self, joint: Tensor) -> Tensor:
        """(B,): the task that answers, which has the most probable class of the most probable label."""
        summed = self.summed(joint).numpy()
        classes = best = summed.argmax(1)  # (B,)
        if len(self.names) < len(self.tasks):
            own = self.of_class.numpy() == best[:, None]
            classes = numpy.where(own, joint.numpy(), numpy.float32(-1)).argmax(1)
        return torch.from_numpy(numpy.asarray(self.tasks)[classes])


@dataclass(frozen=True)
class StagedObservation(Observation):
    """What a staged model makes of B images; logits of tasks that were not run for all of them come on demand."""

    decided: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """(B, classes of all tasks): joint probabilities that decide."""
    told: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """(B, classes of all tasks): joint probabilities that are told."""
    contending: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.bool))
    """(B, T): the tasks that were run for each image."""
    accepted: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """(B,): whether any task that was asked does not call the image unknown."""
    vouching: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    """(B,): whether any of these says that it is known."""
    nearest: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(B,): the largest p-value of all tasks that were asked and can tell."""
    heads_of: tuple[bool, ...] = ()
    """For each task whether it has a head of its own."""
    labels: Labels | None = None
    images: Tensor = field(default_factory=lambda: torch.zeros(0))
    """(B, C, H, W) uint8."""
    ask: Callable[[Tensor, str], Observation] | None = None
    """Shows images to one task."""

    def __getitem__(self, rows: slice) -> Self:
        names = ("log_tasks", "p_values", "decided", "told", "contending", "accepted", "vouching", "nearest", "images")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def of_task(self, task: str) -> Observation:
        """The same images, shown to one task alone; raises UnknownTask."""
        self.index(task)
        assert self.ask is not None, "a staged model can be asked for any of its tasks"
        return self.ask(self.images, task)

    def explained(self, target: str | None, task: str | None) -> tuple[int, int]:
        """As `Observation.explained`; of several tasks with the label, one that has a network."""
        holders = [n for n, info in enumerate(self.tasks) if target in info.classes and self.heads_of[n]]
        if target is not None and task is None and holders:
            task = self.tasks[max(holders, key=lambda number: float(self.log_tasks[0, number]))].name
        elif target is None and task is None:
            answer = self.predictions()[0]
            shared = [n for n, info in enumerate(self.tasks) if answer.label in info.classes and self.heads_of[n]]
            if answer.task not in [self.tasks[n].name for n in shared] and answer.top[0].tasks and shared:
                owner = max(shared, key=lambda number: float(self.log_tasks[0, number]))
                return owner, self.tasks[owner].classes.index(answer.label)
        return super().explained(target, task)

    def logits(self, task: str) -> Tensor:
        """(B, classes) float32: the raw logits of one task's head; raises UnknownTask."""
        return self.of_task(task).logits(task)

    def predictions(self, task: str | None = None, top_k: int = 1) -> list[Prediction]:
        """Recognise the task unless it is given, then read the label off its head.

        Raises
        ------
        UnknownTask
        InputError
            for a `top_k` that is no whole number, or under 1.
        """
        check_top_k(top_k)
        if task is not None:
            return self.of_task(task).predictions(task, top_k)
        return self._answers([top_k] * len(self))

    def probabilities(self, task: str | None = None) -> Tensor:
        """As `Observation.probabilities`; those of a label that tasks share are apart here."""
        return self.told if task is None else self.of_task(task).probabilities(task)

    def predictions_each(self, parts: Sequence[tuple[int, int]], task: str | None = None) -> list[list[Prediction]]:
        """As `Observation.predictions_each`, of all images at once."""
        if task is not None:
            return self.of_task(task).predictions_each(parts, task)
        for _, top_k in parts:
            check_top_k(top_k)
        found = iter(self._answers([top_k for count, top_k in parts for _ in range(count)]))
        return [list(islice(found, count)) for count, _ in parts]

    def _answers(self, top_ks: Sequence[int]) -> list[Prediction]:
        """The prediction for each image, with so many labels."""
        labels, levels, vouched = self.labels, self.levels or (), self.vouched or ()
        assert labels is not None, "a staged model has labels"
        decided = labels.summed(self.decided)
        told = decided if self.told is self.decided else labels.summed(self.told)
        best = _best(decided, max(top_ks, default=1))
        values = numpy.take_along_axis(told.numpy(), best, 1).tolist()
        certain, p_values = self.log_tasks.exp().numpy(), self.p_values.numpy()
        accepted, vouching, nearest = self.accepted.tolist(), self.vouching.tolist(), self.nearest.tolist()
        # Only where classes share a label it takes their probabilities to tell whose it is.
        classes = self.decided.tolist() if len(labels.names) < len(labels.tasks) else [()] * len(self)
        running, found = self._running(), []
        for row, (places, top_k) in enumerate(zip(best.tolist(), top_ks, strict=True)):
            owners = [labels.holders(place, classes[row]) for place in places[:top_k]]
            given = zip(places, values[row], owners, strict=False)
            top = tuple(self._candidate(labels, place, value, own, running[row]) for place, value, own in given)
            owner, first = owners[0][0], top[0]
            p_value = float(p_values[row, owner])
            known = is_known(p_value, levels[owner], vouched[owner])
            if known is False and accepted[row]:  # the tasks nearest to it have not all declined
                known, p_value = (True if vouching[row] else None), nearest[row]
            found.append(
                Prediction(
                    first.task,
                    float(certain[row, owner]),
                    first.label,
                    first.probability,
                    top,
                    known,
                    min(1.0, max(0.0, 1.0 - p_value)),
                    self.passes,
                    tuple(self.tasks[number].name for number in running[row]),
                    self.calibrated,
                )
            )
        return found

    def _running(self) -> list[list[int]]:
        """For each image the tasks whose networks were run."""
        found: list[list[int]] = [[] for _ in range(len(self))]
        for row, number in numpy.argwhere(self.contending.numpy() & numpy.asarray(self.heads_of)).tolist():
            found[row].append(number)
        return found

    def _candidate(
        self, labels: Labels, place: int, value: float, owners: Sequence[int], running: Sequence[int]
    ) -> Candidate:
        evidence: Literal["head", "ridge"] = "head" if owners[0] in running else "ridge"
        shared = tuple([self.tasks[one].name for one in owners]) if labels.joined else ()
        return Candidate(self.tasks[owners[0]].name, labels.names[place], value, evidence, shared)


def _best(decided: Tensor, count: int) -> NDArray[numpy.int64]:
    """(B, count): places of the largest values (B, labels) at most, the largest first, and of equals the first."""
    if count == 1:
        return numpy.asarray(decided.numpy().argmax(1))[:, None]
    # Stable, so that of equals it is the same one that answers whatever `top_k`, and that was asked if it knows.
    return decided.sort(dim=1, descending=True, stable=True).indices.numpy()[:, :count]
