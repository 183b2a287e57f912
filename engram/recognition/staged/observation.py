"""Observations of a staged model: what both stages say of a batch, and the predictions read from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
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

    def owners(self, joint: Tensor) -> Tensor:
        """(B,): the task that answers, which has the most probable class of the most probable label."""
        best = self.summed(joint).argmax(1)  # (B,)
        classes = joint.masked_fill(self.of_class != best[:, None], -1).argmax(1)
        return torch.tensor(self.tasks)[classes]


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
        labels, levels, vouched = self.labels, self.levels or (), self.vouched or ()
        assert labels is not None, "a staged model has labels"
        decided = labels.summed(self.decided)
        told = decided if self.told is self.decided else labels.summed(self.told)
        # Stable, so that of equals it is the same one that answers whatever `top_k`, and that was asked if it knows.
        best = decided.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
        values, places = told.gather(1, best).tolist(), best.tolist()
        classes, ran, p_values = self.decided.tolist(), self.contending.tolist(), self.p_values.tolist()
        certain = self.log_tasks.exp().tolist()
        accepted, vouching, nearest = self.accepted.tolist(), self.vouching.tolist(), self.nearest.tolist()
        names = [info.name for info in self.tasks]
        found = []
        for row, chosen in enumerate(places):
            top = []
            for place, value in zip(chosen, values[row], strict=True):
                held = sorted(labels.classes[place], key=lambda one: -classes[row][one])
                owner = labels.tasks[held[0]]
                head = ran[row][owner] and self.heads_of[owner]
                shared = tuple(names[labels.tasks[one]] for one in held) if labels.joined else ()
                evidence: Literal["head", "ridge"] = "head" if head else "ridge"
                top.append(Candidate(names[owner], labels.names[place], value, evidence, shared))
            owner = labels.tasks[max(labels.classes[chosen[0]], key=lambda one: classes[row][one])]
            p_value = p_values[row][owner]
            known = is_known(p_value, levels[owner], vouched[owner])
            if known is False and accepted[row]:  # the tasks nearest to it have not all declined
                known, p_value = (True if vouching[row] else None), nearest[row]
            running = tuple(names[one] for one, has in enumerate(self.heads_of) if has and ran[row][one])
            first = top[0]
            found.append(
                Prediction(
                    first.task,
                    certain[row][owner],
                    first.label,
                    first.probability,
                    tuple(top),
                    known,
                    min(1.0, max(0.0, 1.0 - p_value)),
                    self.passes,
                    running,
                )
            )
        return found
