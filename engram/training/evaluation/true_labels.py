"""True labels of images, as the folders that they lie in say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from engram.errors import AmbiguousLabel


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
        Of each of its tasks.
    others
        Names of tasks that other versions have, so that a folder of that name is none of a class here.
    """

    version: int
    classes: Mapping[str, Sequence[str]]
    others: frozenset[str] = frozenset()

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
            return TrueLabel(task, label) if label in self.classes.get(task, ()) else None
        holders = self._holders(label)
        if len(holders) > 1:
            named = ", ".join(map(repr, holders[:3])) + (f" and {len(holders) - 3} more" if len(holders) > 3 else "")
            raise AmbiguousLabel(
                f"{len(holders)} tasks of version {self.version} have the label {label!r} ({named}): "
                "put its folder into one called as the task, or name the task"
            )
        return TrueLabel(holders[0], label) if holders else None

    def shown(self, task: str, label: str) -> str:
        """A class by its label, or by `task/label` where other tasks have that label, too; as folders name it."""
        return label if len(self._holders(label)) < 2 else f"{task}/{label}"

    def _holders(self, label: str) -> list[str]:
        return [task for task, classes in self.classes.items() if label in classes]
