"""Names that a version shows of its tasks and classes, laid over those that they were learned under.

What a task was learned under stays its identity: everything stored is keyed by it. `Commit.names` holds what is shown
in its place, only where that is another:

    {task: {"name": shown, "labels": {label: shown}}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vault.commit_log import Commit


@dataclass(frozen=True)
class NamedTask:
    """A task of a version: what it and its classes are called, and what they were learned under."""

    name: str
    classes: tuple[str, ...]
    learned_name: str
    learned_classes: tuple[str, ...]
    """In the order of `classes`."""

    @classmethod
    def of(cls, task: Mapping[str, Any], names: Mapping[str, Any]) -> NamedTask:
        """A task as a commit has it, with what is shown in the place of its names."""
        name, classes = str(task["name"]), tuple(task["classes"])
        labels = names.get("labels", {})
        return cls(names.get("name", name), tuple(labels.get(label, label) for label in classes), name, classes)

    @property
    def renamed(self) -> bool:
        """Whether anything of it is shown by another name than it was learned under."""
        return (self.name, self.classes) != (self.learned_name, self.learned_classes)

    def label(self, given: str) -> str | None:
        """The class that is shown by a name, or else the one that was learned under it, as it is shown."""
        if given in self.classes:
            return given
        return self.classes[self.learned_classes.index(given)] if given in self.learned_classes else None

    def called(self, name: str | None, labels: Mapping[str, str]) -> NamedTask:
        """The same by another name, and with other labels in the place of those that are shown."""
        classes = tuple(labels.get(label, label) for label in self.classes)
        return replace(self, name=self.name if name is None else name, classes=classes)

    def changed_from(self, before: NamedTask) -> dict[str, Any]:
        """What is shown otherwise than before, as JSON: the task's name and its labels, each by what it was."""
        labels = {old: new for old, new in zip(before.classes, self.classes, strict=True) if old != new}
        return {"from": before.name, "to": self.name, "labels": labels}

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what is shown, and where that is another also what it was learned under."""
        learned = {"name": self.learned_name, "classes": list(self.learned_classes)}
        return {"name": self.name, "classes": list(self.classes)} | ({"learned_as": learned} if self.renamed else {})


def named_tasks(commit: Commit) -> tuple[NamedTask, ...]:
    """The tasks of a version, in its order."""
    names = commit.names or {}
    return tuple(NamedTask.of(task, names.get(task["name"], {})) for task in commit.tasks)


def shown(commit: Commit) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What is shown of the tasks of a version, name and classes, by what each was learned under."""
    return {one.learned_name: (one.name, one.classes) for one in named_tasks(commit)}


def find(tasks: Iterable[NamedTask], name: str) -> NamedTask | None:
    """The task that is shown by a name, or else the one that was learned under it."""
    listed = list(tasks)
    first = next((one for one in listed if one.name == name), None)
    return first or next((one for one in listed if one.learned_name == name), None)


def named(commit: Commit, task: str) -> str:
    """What a version shows in the place of the name that a task was learned under; that itself where it has none."""
    return str((commit.names or {}).get(task, {}).get("name", task))


def is_shown_elsewhere(commit: Commit, name: str) -> bool:
    """Whether a version shows by this name a task that was learned under another."""
    found = find(named_tasks(commit), name)
    return found is not None and found.learned_name != name


def overlay(tasks: Sequence[NamedTask]) -> dict[str, Any] | None:
    """What a commit names of these tasks: all that is shown by another name; None where nothing is."""
    found: dict[str, Any] = {}
    for one in tasks:
        pairs = zip(one.learned_classes, one.classes, strict=True)
        labels = {learned: label for learned, label in pairs if learned != label}
        about = ({"name": one.name} if one.name != one.learned_name else {}) | ({"labels": labels} if labels else {})
        if about:
            found[one.learned_name] = about
    return found or None


def ambiguity(commit: Commit) -> str | None:
    """Why it cannot be told what a version's names are of, as the rest of a sentence; None where it can."""
    if not _are_names(commit.names or {}):
        return "its names are none"
    tasks = named_tasks(commit)
    if commit.names is not None and commit.names != overlay(tasks):
        return "its names are not those of its tasks"
    taken: dict[str, str] = {}
    for one in tasks:
        for name in {one.name, one.learned_name}:
            if taken.setdefault(name, one.learned_name) != one.learned_name:
                return f"two of its tasks are known by the name {name[:100]!r}"
        if len(set(one.classes)) < len(one.classes):
            return f"two classes of its task {one.name[:100]!r} have one name"
    return None


def _are_names(names: Mapping[str, Any]) -> bool:
    for about in names.values():
        if not isinstance(about, dict) or not isinstance(about.get("name", ""), str):
            return False
        labels = about.get("labels", {})
        if not isinstance(labels, dict) or not all(isinstance(label, str) for label in labels.values()):
            return False
    return True
