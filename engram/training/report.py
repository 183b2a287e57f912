"""The learning report: what learning one task did and cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from engram.checkpointing.curves import CurvePoint, thinned
from engram.checkpointing.journal import Journal
from engram.config.options import LearnOptions
from engram.data.examples import Examples
from engram.training.class_recall import ClassRecall, balanced_accuracy, recall_warnings

SELDOM = 0.5
"""Share of a task's held-out images below which the report warns that they are seldom recognised as of it."""


@dataclass
class LearningReport:
    """A report on learning one task: accuracy, units, seconds; everything in it can be written as JSON."""

    task: str
    classes: dict[str, int]
    """Images of each class that were learned from."""
    held_out: int
    options: dict[str, object]
    candidate: dict[str, int] = field(default_factory=dict)
    """Units tried in each layer."""
    units: dict[str, int] = field(default_factory=dict)
    """Units kept in each layer."""
    accuracy: dict[str, float] = field(default_factory=dict)
    """Held-out accuracy with the task given: `trained`, before pruning, and `kept`, of all that remains; with `eidetic`
    also `network`, what remains before the head reads the commons."""
    per_class: dict[str, dict[str, object]] = field(default_factory=dict)
    """For each class how many images were held out, its recall on them with the task given, and the limits of the
    95 % interval (Wilson): `{"held_out": 1, "recall": 1.0, "interval": [0.21, 1.0]}`."""
    balanced_accuracy: float = 0.0
    """The mean of the classes' recalls."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on what to be wary of, such as a class of which too few images were held out to judge it."""
    recognised: float = 1.0
    """Share of the held-out images that the recogniser gives to this task, among all tasks so far."""
    given_to: dict[str, int] = field(default_factory=dict)
    """How many held-out images are given to each task, this one and others, those with most images first; of a few of
    them where a method judges `recognised` by few."""
    answered: float = 0.0
    """Held-out accuracy with no task given."""
    novelty: dict[str, object] = field(default_factory=dict)
    """How strangers are told from the task's own images: by `scores` of so many of these, and up to the p-value
    `level`; with fewer than 20 of them it is None, and so is `known` in answers."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each phase, over all runs that this one goes on from."""
    phases: dict[str, float] = field(default_factory=dict)
    """The same by what was done in them."""
    resumed: int = 0
    """How many runs broke off whose work was taken over from their checkpoints."""
    curves: list[CurvePoint] = field(default_factory=list)
    """Losses and held-out accuracy after each epoch of each phase of training, in order; the JSON has 500 of them at
    most, evenly spread."""
    details: dict[str, object] = field(default_factory=dict)
    """What only this method has to tell."""
    recalls: dict[str, ClassRecall] = field(default_factory=dict, repr=False)
    """What `per_class` says; no part of the report."""
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    """What seconds are counted by; no part of the report."""

    @classmethod
    def begun(cls, task: str, train: Examples, held_out: Examples, options: LearnOptions, journal: Journal) -> Self:
        """The report of a task that is about to be learned from `train`, and judged by `held_out`."""
        counts = dict(zip(train.classes, train.counts(), strict=True))
        given = {**options.stored(), **options.model_dump(mode="json")}
        resumed, curves = journal.resumed, journal.curve  # which grows while the task is learned
        return cls(task, counts, len(held_out), given, resumed=resumed, curves=curves, clock=journal.clock)

    def to_dict(self) -> dict[str, object]:
        told = {name: value for name, value in vars(self).items() if name not in ("clock", "recalls")}
        return {**told, "curves": thinned(self.curves)}

    def judge(self, hits: Tensor, held_out: Examples) -> None:
        """Write down how each class fares.

        Parameters
        ----------
        hits
            (M,) bool: which held-out images are answered right, the task given.
        """
        self.recalls = ClassRecall.of(hits, held_out)
        self.accuracy["kept"] = float(hits.double().mean())
        self.per_class = {name: each.to_dict() for name, each in self.recalls.items()}
        self.balanced_accuracy = balanced_accuracy(self.recalls)
        self.warnings += recall_warnings(self.recalls)

    def route(self, given: Tensor, tasks: Sequence[str]) -> None:
        """Write down which tasks the held-out images are given to.

        Parameters
        ----------
        given
            (M,) int64: for each image the place of its task in `tasks`.
        """
        counts = torch.bincount(given, minlength=len(tasks)).tolist()
        found = sorted(zip(tasks, counts, strict=True), key=lambda pair: -pair[1])
        self.given_to = {task: count for task, count in found if count}

    def heed_recognition(self) -> None:
        """Warn of a task that is seldom found again without being named; nothing else would say that of a version."""
        if self.recognised >= SELDOM:
            return
        most = next(
            (f", and {count} are given to {task!r}" for task, count in self.given_to.items() if task != self.task), ""
        )
        self.warnings.append(
            f"without the task named, {self.recognised:.0%} of its held-out images are recognised as of this task"
            f"{most}; min_recognised makes a job fail instead"
        )

    @property
    def class_figures(self) -> dict[str, object]:
        """What a certificate repeats of how the classes fare."""
        return {"balanced_accuracy": self.balanced_accuracy, "per_class": self.per_class}

    @contextmanager
    def timed(self, phase: str, part: str | None = None) -> Iterator[None]:
        """Count the time of what is done within to a phase, and to a part of it."""
        started = self.clock()
        try:
            yield
        finally:
            self.took(self.clock() - started, phase, part)

    def took(self, seconds: float, phase: str, part: str | None = None) -> None:
        """Count so many seconds to a phase, and to a part of it; without one, to the phase as a whole."""
        for table, name in ((self.seconds, phase), (self.phases, part or phase)):
            table[name] = round(table.get(name, 0.0) + seconds, 3)
