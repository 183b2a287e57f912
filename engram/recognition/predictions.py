"""Observations of one forward pass, and the predictions read from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import index as whole
from typing import Literal

import torch
from torch import Tensor

from engram.errors import InputError, NothingLearned, UnknownLabel, UnknownTask
from engram.nn.capacity import TaskInfo
from engram.recognition.conformal import ALPHA
from engram.recognition.heads.head_balance import HeadBalance, within_task


@dataclass(frozen=True)
class Candidate:
    """One label that an image might have; `probability` counts that of the task, or of all `tasks`, in."""

    task: str
    label: str
    probability: float
    evidence: Literal["head", "ridge"] = "head"
    """Whether a head of the task said so, or the regression over the commons alone."""
    tasks: tuple[str, ...] = ()
    """All tasks in question that have a class of this name, the most probable first; nothing where labels of one name
    are told apart."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one image."""

    task: str
    task_probability: float
    label: str
    probability: float
    """Of task and label together; where several tasks have the label, of all of these, so that it may exceed
    `task_probability`."""
    top: tuple[Candidate, ...]
    """The best labels of all tasks in question, best first; the first is the answer itself. Where a task has classes of
    unequal size they are ordered as if all came equally often, so that the first may not be the most probable."""
    known: bool | None
    """Whether the task that is answered accepts the image as one of its own kind; None where it cannot tell. Where
    answers are staged: or one of the tasks nearest to the image, if that one declines."""
    novelty: float
    """0 to 1: the share of a task's own images that look less unusual to it, of the task that `known` is told by."""
    passes: int = 1
    """How often the image went through a network for this answer."""
    ran: tuple[str, ...] = ()
    """The tasks whose networks were run for this answer; nothing where a model always runs them all."""
    calibrated: bool = True
    """Whether probabilities are fitted on images that were held out; not where an adopted network has its say of whose
    classes no image was given."""


@dataclass(frozen=True)
class Observation:
    """One pass over B images: every task's logits, and what the recogniser makes of them."""

    tasks: tuple[TaskInfo, ...]
    heads: tuple[Tensor, ...]
    """For each task (B, classes) float32: the raw logits; nothing where answers are staged: `logits` asks for them."""
    temperatures: Tensor
    """(T,)."""
    log_tasks: Tensor
    """(B, T)."""
    p_values: Tensor
    """(B, T); not a number where answers are staged and a task was not asked."""
    passes: int = 1
    """How often the images went through a network."""
    levels: tuple[float | None, ...] | None = None
    """For each task the p-value up to which an image is unknown to it, and None where that cannot be told; all
    `ALPHA` where nothing is given."""
    vouched: tuple[bool, ...] | None = None
    """For each task whether an image that is not unknown to it is known, and not merely not to be told from its own."""
    balances: tuple[HeadBalance | None, ...] | None = None
    """For each task what decides between classes of unequal size; None where no task has any."""
    ran: tuple[str, ...] = ()
    """The tasks that were run, where a model does not always run them all."""
    evidence: Literal["head", "ridge"] = "head"
    """What labels rest on: `ridge` for a task that has no network."""
    calibrated: bool = True
    """As of `Prediction`."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Further names of tasks, with the names that they have in `tasks`."""

    def __len__(self) -> int:
        return len(self.log_tasks)

    def __getitem__(self, rows: slice) -> Observation:
        """The same, for some of the images."""
        heads = tuple(head[rows] for head in self.heads)
        return replace(self, heads=heads, log_tasks=self.log_tasks[rows], p_values=self.p_values[rows])

    def index(self, task: str) -> int:
        """The position of a task.

        Raises
        ------
        UnknownTask
        """
        for position, info in enumerate(self.tasks):
            if info.name == task:
                return position
        if (known := self.aliases.get(task)) is not None:
            return self.index(known)
        raise UnknownTask(f"the model has no task {task!r}")

    def logits(self, task: str) -> Tensor:
        """(B, classes) float32: the raw logits of one task's head."""
        return self.heads[self.index(task)]

    def explained(self, target: str | None, task: str | None) -> tuple[int, int]:
        """The task and the class whose logit is explained of the first image, as `Memory.explain` takes them.

        Raises
        ------
        UnknownTask, UnknownLabel
        """
        tasks = self.tasks
        if target is None:
            answer = self.predictions(task)[0]
            owner = self.index(answer.task)
            return owner, tasks[owner].classes.index(answer.label)
        holders = [position for position, info in enumerate(tasks) if target in info.classes]
        if task is not None:
            owner = self.index(task)
        elif not holders:
            raise UnknownLabel(f"no task has a label {target!r}")
        else:
            owner = max(holders, key=lambda position: float(self.log_tasks[0, position]))
        if owner not in holders:
            raise UnknownLabel(f"task {tasks[owner].name!r} has no label {target!r}")
        return owner, tasks[owner].classes.index(target)

    def predictions(self, task: str | None = None, top_k: int = 1) -> list[Prediction]:
        """Recognise the task unless it is given, then read the label off its head.

        Raises
        ------
        UnknownTask
        InputError
            for a `top_k` that is no whole number, or under 1.
        """
        check_top_k(top_k)
        chosen, log_tasks, within = self._within(task)
        decisive = _joint(log_tasks, [deciding for deciding, _ in within])  # (B, all classes)
        joint = decisive if self.balances is None else _joint(log_tasks, [told for _, told in within])
        names = [(self.tasks[t].name, label) for t in chosen for label in self.tasks[t].classes]
        best = decisive.topk(min(top_k, joint.shape[1]), 1).indices
        values = joint.gather(1, best)
        owners = [i for i, t in enumerate(chosen) for _ in self.tasks[t].classes]
        answered = torch.tensor(owners)[best[:, 0]]  # (B,)
        accepted = self.p_values[:, list(chosen)].gather(1, answered[:, None])[:, 0]  # (B,)
        every = self.levels or (ALPHA,) * len(self.tasks)
        bounds = [(every[t], self.vouched is None or self.vouched[t]) for t in chosen]
        return [
            self._prediction(names, owners, log_tasks[row].exp(), values[row], best[row], seen, bounds)
            for row, seen in enumerate(accepted.tolist())
        ]

    def probabilities(self, task: str | None = None) -> Tensor:
        """(B, classes of all tasks) float32, or (B, classes) of one task: probabilities of task and label together.

        Raises
        ------
        UnknownTask
        """
        _, log_tasks, within = self._within(task)
        return _joint(log_tasks, [told for _, told in within])

    def _within(self, task: str | None) -> tuple[Sequence[int], Tensor, list[tuple[Tensor, Tensor]]]:
        """Tasks in question, logs of their probabilities, and what `within_task` says of the classes of each."""
        chosen = range(len(self.tasks)) if task is None else [self.index(task)]
        log_tasks = self.log_tasks if task is None else torch.zeros(len(self), 1)
        balances = self.balances or (None,) * len(self.tasks)
        return chosen, log_tasks, [within_task(self.heads[t], self.temperatures[t], balances[t]) for t in chosen]

    def predictions_each(self, parts: Sequence[tuple[int, int]], task: str | None = None) -> list[list[Prediction]]:
        """The same for consecutive parts of the images, each with so many images and a `top_k` of its own."""
        if len({top_k for _, top_k in parts}) == 1:
            answers = iter(self.predictions(task, parts[0][1]))
            return [list(islice(answers, count)) for count, _ in parts]
        found, start = [], 0
        for count, top_k in parts:
            found.append(self[start : start + count].predictions(task, top_k))
            start += count
        return found

    def _prediction(
        self,
        names: Sequence[tuple[str, str]],
        owners: Sequence[int],
        of_tasks: Tensor,
        values: Tensor,
        indices: Tensor,
        accepted: float,
        bounds: Sequence[tuple[float | None, bool]],
    ) -> Prediction:
        top = tuple(
            Candidate(names[index][0], names[index][1], probability, self.evidence)
            for index, probability in zip(indices.tolist(), values.tolist(), strict=True)
        )
        first = top[0]
        owner = owners[int(indices[0])]
        certainty, (level, vouches) = float(of_tasks[owner]), bounds[owner]
        known, novelty = is_known(accepted, level, vouches), max(0.0, 1.0 - accepted)
        return Prediction(
            first.task,
            certainty,
            first.label,
            first.probability,
            top,
            known,
            novelty,
            self.passes,
            self.ran,
            self.calibrated,
        )


def explained(
    tasks: Sequence[TaskInfo], show: Callable[[str | None], Observation], target: str | None, task: str | None
) -> tuple[int, int]:
    """The task and the class whose logit is explained of an image, as `Memory.explain` takes them.

    Parameters
    ----------
    tasks
        All that there are.
    show
        Shows the image to one task, or to all; it is shown to no more tasks than it takes to tell.

    Raises
    ------
    NothingLearned, UnknownTask, UnknownLabel
    """
    if not tasks:
        raise NothingLearned("the model has learned no task yet")
    holders = [number for number, info in enumerate(tasks) if task in (None, info.name) and target in info.classes]
    if len(holders) == 1:
        return holders[0], tasks[holders[0]].classes.index(str(target))
    observed = show(task if target is None else None)
    owner, label = observed.explained(target, task)
    return [info.name for info in tasks].index(observed.tasks[owner].name), label


def is_known(p_value: float, level: float | None, vouches: bool) -> bool | None:
    """Whether a task accepts an image with this p-value as one of its own kind; None where it cannot tell."""
    if level is None or math.isnan(p_value):
        return None
    if p_value <= level:
        return False
    return True if vouches else None


def _joint(log_tasks: Tensor, within: Sequence[Tensor]) -> Tensor:
    """(B, all classes): probabilities of task and class together, from their logs (B, T) and (B, classes) each."""
    return torch.cat([log_tasks[:, [i]] + labels for i, labels in enumerate(within)], 1).exp()


def check_top_k(top_k: int) -> None:
    """Raise InputError for what is no number of labels."""
    try:
        number = whole(top_k)
    except TypeError as error:
        raise InputError(f"top_k is a whole number, not {top_k!r}") from error
    if isinstance(top_k, bool):
        raise InputError(f"top_k is a whole number, not {top_k}")
    if number < 1:
        raise InputError(f"top_k is at least 1, not {top_k}")
