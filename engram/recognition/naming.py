"""Names that tasks and classes are shown by, in the place of those that they were learned under."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

from torch import Tensor

from engram.errors import UnknownTask
from engram.nn.capacity import TaskInfo
from engram.recognition.predictions import Observation
from engram.recognition.staged.observation import StagedObservation


@dataclass(frozen=True)
class Naming:
    """The tasks of a model as they were learned, and as they are shown, in one order.

    Names that are shown differ from one another; where one of them is also the name that another task was learned
    under, it means the task that is shown by it.
    """

    learned: tuple[TaskInfo, ...]
    shown: tuple[TaskInfo, ...]

    @classmethod
    def of(cls, learned: Sequence[TaskInfo], shown: Mapping[str, tuple[str, tuple[str, ...]]]) -> Self:
        """For each task that was learned the name and the classes that are shown; those not listed keep their own."""
        infos = []
        for info in learned:
            name, classes = shown.get(info.name, (info.name, info.classes))
            assert len(classes) == len(info.classes), "every class has a name"
            infos.append(replace(info, name=name, classes=classes))
        return cls(tuple(learned), tuple(infos))

    def task(self, name: str) -> str:
        """What a task was learned under that is shown by this name, or was learned under it; raises UnknownTask."""
        number = self._numbers.get(name)
        if number is None:
            raise UnknownTask(f"the model has no task {name!r}")
        return self.learned[number].name

    def shown_task(self, name: str) -> str:
        """The name that is shown of a task, by either; one that no task has stays as it is."""
        number = self._numbers.get(name)
        return name if number is None else self.shown[number].name

    def of_learned(self, name: str) -> TaskInfo:
        """What is shown of the task that was learned under this name."""
        return self._shown[name]

    def shown_label(self, label: str, task: str | None = None) -> str:
        """The label that is shown, of one task or of any, by either name; one that no class has stays as it is.

        Where several classes that are shown by different labels were learned under this one, it stays as it is, too.
        """
        chosen = [
            number for number in range(len(self.learned)) if task is None or self._numbers.get(task, -1) == number
        ]
        if any(label in self.shown[number].classes for number in chosen):
            return label
        found = {
            shown
            for number in chosen
            for learned, shown in zip(self.learned[number].classes, self.shown[number].classes, strict=True)
            if learned == label
        }
        return found.pop() if len(found) == 1 else label

    def learned_class(self, task: str, label: str) -> tuple[str, str]:
        """Task and label that a class was learned under, by those that are shown."""
        number = self._numbers[task]
        learned, shown = self.learned[number], self.shown[number]
        return learned.name, learned.classes[shown.classes.index(label)]

    def named(self, observed: Observation) -> Observation:
        """What was observed, by the names that are shown."""
        names = self._shown
        tasks = tuple([names[info.name] for info in observed.tasks])
        ran = tuple([names[name].name for name in observed.ran])
        found = replace(observed, tasks=tasks, ran=ran, aliases=self._aliases)
        if isinstance(observed, StagedObservation) and isinstance(found, StagedObservation):
            ask = observed.ask
            assert ask is not None, "a staged model can be asked for any of its tasks"

            def asked(images: Tensor, task: str) -> Observation:
                return self.named(ask(images, self.task(task)))

            return replace(found, ask=asked)
        return found

    @cached_property
    def _shown(self) -> dict[str, TaskInfo]:
        """What is shown of each task, by what it was learned under."""
        return {learned.name: shown for learned, shown in zip(self.learned, self.shown, strict=True)}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The place of each task, by either name; what is shown counts first."""
        learned = {info.name: number for number, info in enumerate(self.learned)}
        return learned | {info.name: number for number, info in enumerate(self.shown)}

    @cached_property
    def _aliases(self) -> dict[str, str]:
        """What is shown of the tasks that were learned under another name, by that name."""
        showing = {info.name for info in self.shown}
        return {info.name: self.shown_task(info.name) for info in self.learned if info.name not in showing}
