"""Class index: the number of each class of a model, which no later version changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from vault.classes.names import named_tasks
from vault.commit_log import Commit, CommitLog
from vault.errors import UnknownVersion

_CACHED_HISTORIES = 256
"""Models whose classes are kept in memory."""
_CACHED_INDEXES = 64
"""Versions whose index is kept in memory."""


@dataclass(frozen=True)
class ClassIndex:
    """The numbers of all classes that a model has ever had, up to one version.

    A class is a label of a task. Classes are numbered in the order in which the model's history names them first; the
    index of a later version begins with that of every earlier one. What the version does not have any more keeps its
    place, as a tombstone, and has it again if it ever comes back. Another name that is shown changes no number.
    """

    version: int
    classes: tuple[tuple[str, str], ...]
    """Task and label of each number, as the version shows them; of a tombstone as they were learned."""
    numbers: Mapping[str, tuple[int, ...]]
    """For each task of the version, in their order, the numbers of its classes, in theirs."""
    learned: Mapping[str, str] = field(default_factory=dict)
    """What tasks are shown by that were learned under another name, by that name."""

    def __len__(self) -> int:
        return len(self.classes)

    def of_task(self, name: str) -> tuple[int, ...]:
        """The numbers of the classes of a task, by the name that is shown or that it was learned under."""
        return self.numbers[name if name in self.numbers else self.learned[name]]

    @cached_property
    def served(self) -> tuple[int, ...]:
        """The numbers of the classes that the version has, in the order of its tasks; all others are tombstones."""
        return tuple(number for numbers in self.numbers.values() for number in numbers)

    @cached_property
    def dense(self) -> bool:
        """Whether the version has all classes, in the order of their numbers."""
        return self.served == tuple(range(len(self.classes)))


@dataclass
class _History:
    """What the commits of a model, read in order, have named so far."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    """By version: how many classes there were after it."""
    answering: list[int] = field(default_factory=list)
    """The versions that have tasks."""

    def add(self, commit: Commit) -> None:
        assert commit.version == len(self.ends), "commits are read in order, each once"
        for key in _classes(commit.tasks):
            self.numbers.setdefault(key, len(self.numbers))
        self.ends.append(len(self.numbers))
        if commit.tasks:
            self.answering.append(commit.version)


def _classes(tasks: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    return ((task["name"], label) for task in tasks for label in task["classes"])


class ClassIndexes:
    """Class indexes of all models, read from their commit logs; safe to use from any thread.

    A log is read once a process, and its later commits as they come.
    """

    def __init__(self, log: CommitLog) -> None:
        self._log = log
        self._histories: OrderedDict[str, _History] = OrderedDict()
        """By lineage."""
        self._indexes: OrderedDict[tuple[str, int], ClassIndex] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, lineage: str, version: int) -> ClassIndex | None:
        """The index of a version, if it is in memory; the store is not asked."""
        return self._indexes.get((lineage, version))

    def of(self, model: str, version: int) -> ClassIndex:
        """The index of a version.

        Raises
        ------
        UnknownModel, UnknownVersion
        Unreadable, NotFound
            A record of that version, or of one before, is damaged or missing: what it named cannot be told.
        """
        commit = self._log.read(model, version)
        with self._lock:
            key = (commit.lineage, version)
            if (found := self._indexes.get(key)) is None:
                found = self._indexes[key] = _index(self._history(model, commit), commit)
                while len(self._indexes) > _CACHED_INDEXES:
                    self._indexes.popitem(last=False)
        return found

    def answering(self, model: str) -> list[int]:
        """The versions that have tasks, ascending; raises as `of`."""
        head = self._log.head(model)
        if head is None:
            return []
        with self._lock:
            return list(self._history(model, head).answering)

    def _history(self, model: str, commit: Commit) -> _History:
        """What is known of a model through a commit; the rest of the log is read."""
        history = self._histories.setdefault(commit.lineage, _History())
        self._histories.move_to_end(commit.lineage)
        while len(self._histories) > _CACHED_HISTORIES:
            self._histories.popitem(last=False)
        known = len(history.ends)
        if known <= commit.version:
            for one in self._log.list(model, known - 1 if known else None, commit.version + 1 - known):
                if one.lineage != commit.lineage:  # deleted meanwhile, and made again
                    raise UnknownVersion(model, commit.version)
                history.add(one)
        return history


def _index(history: _History, commit: Commit) -> ClassIndex:
    tasks = named_tasks(commit)
    numbers = {
        one.name: tuple(history.numbers[one.learned_name, label] for label in one.learned_classes) for one in tasks
    }
    classes = list(history.numbers)[: history.ends[commit.version]]
    for one in tasks:
        for number, label in zip(numbers[one.name], one.classes, strict=True):
            classes[number] = (one.name, label)
    learned = {one.learned_name: one.name for one in tasks if one.learned_name != one.name}
    return ClassIndex(commit.version, tuple(classes), numbers, learned)
