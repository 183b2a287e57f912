"""True labels of images, as the folders that they lie in say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engram.errors import AmbiguousLabel
from engram.recognition.naming import Naming


class TrueLabel(NamedTuple):
    """A class of a task."""

    task: str
    label: str


@dataclass(frozen=True)
class TrueLabels:
    """The classes that a version knows, by their folders.

    Parameters
    ----------
    version
        Its number, for sentences.
    classes
        Of each of its tasks, as they are shown.
    others
        Names of tasks that other versions have, so that a folder of that name is none of a class here.
    known_tasks, known_labels
        Further names, with those that are shown: of tasks, and of the classes of each task.
    """

    version: int
    classes: Mapping[str, Sequence[str]]
    others: frozenset[str] = frozenset()
    known_tasks: Mapping[str, str] = field(default_factory=dict)
    known_labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @classmethod
    def of_versions(cls, versions: Mapping[int, Naming]) -> list[TrueLabels]:
        """Those of versions that are evaluated together, by number.

        A folder may be called as any of them shows a task and a class, or as these were learned. Where a name means
        something to a version by itself, that counts.
        """
        namings = versions.values()
        names = frozenset(info.name for one in namings for infos in (one.learned, one.shown) for info in infos)
        return [cls._of(number, own, names, [*namings, own]) for number, own in versions.items()]

    @classmethod
    def _of(cls, number: int, own: Naming, names: frozenset[str], namings: Sequence[Naming]) -> TrueLabels:
        """Those of one version; of `namings`, the later ones count more."""
        shown = {learned.name: (learned, info) for learned, info in zip(own.learned, own.shown, strict=True)}
        tasks: dict[str, str] = {}
        labels: dict[str, dict[str, str]] = {}
        for naming in namings:
            for learned, other in zip(naming.learned, naming.shown, strict=True):
                if learned.name in shown:
                    first, info = shown[learned.name]
                    tasks |= {other.name: info.name, learned.name: info.name}
                    mine = dict(zip(first.classes, info.classes, strict=True))
                    pairs = zip(learned.classes, other.classes, strict=True)
                    found = {name: mine[label] for label, given in pairs if label in mine for name in (given, label)}
                    labels[info.name] = labels.get(info.name, {}) | found
        return cls(number, {info.name: info.classes for info in own.shown}, names, tasks, labels)

    def of(self, folder: Sequence[str], task: str | None = None) -> TrueLabel | None:
        """The class of the images in `folder`, `(..., label)` or `(..., task, label)`; None where the version has none.

        Parameters
        ----------
        task
            The one that all images are of, whatever their folders say.

        Raises
        ------
        AmbiguousLabel
            Several tasks have this label, and neither the folder nor `task` says which of them is meant.
        """
        label = folder[-1]
        if task is None and len(folder) > 1 and (folder[-2] in self.classes or folder[-2] in self.others):
            task = folder[-2]
        if task is not None:
            return self._class(task if task in self.classes else self.known_tasks.get(task, task), label)
        holders = self._holders(label) or [task for task, known in self.known_labels.items() if label in known]
        if len(holders) > 1:
            named = ", ".join(map(repr, holders[:3])) + (f" and {len(holders) - 3} more" if len(holders) > 3 else "")
            raise AmbiguousLabel(
                f"{len(holders)} tasks of version {self.version} have the label {label!r} ({named}): "
                "put its folder into one called as the task, or name the task"
            )
        return self._class(holders[0], label) if holders else None

    def shown(self, task: str, label: str) -> str:
        """A class by its label, or by `task/label` where other tasks have that label, too; as folders name it."""
        return label if len(self._holders(label)) < 2 else f"{task}/{label}"

    def _class(self, task: str, label: str) -> TrueLabel | None:
        """A class of a task, by a label that is shown or known."""
        if label in self.classes.get(task, ()):
            return TrueLabel(task, label)
        known = self.known_labels.get(task, {}).get(label)
        return None if known is None else TrueLabel(task, known)

    def _holders(self, label: str) -> list[str]:
        return [task for task, classes in self.classes.items() if label in classes]
