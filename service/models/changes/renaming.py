"""Renaming: the version that shows a task, or its classes, by other names than the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engram.data.archiving.names import look
from engram.errors import TaskExists, UnknownLabel, UnknownTask
from service.errors.exceptions import LabelExists
from service.models.versions import Made, append, raise_if_made
from vault import approval
from vault.classes.names import NamedTask, find, named_tasks, overlay
from vault.commit_log import Commit
from vault.errors import CandidatesWaiting
from vault.jobs.idempotency import Claim
from vault.vault import Vault


@dataclass(frozen=True)
class Renaming:
    """What is to be shown of a task; its names are valid ones."""

    task: str
    """As it is shown, or as it was learned."""
    name: str | None = None
    """The task's name from now on; None for the one that it has."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels from now on, by those that are shown, or that were learned."""

    def of(self, tasks: Sequence[NamedTask]) -> tuple[NamedTask, NamedTask]:
        """The task among those of a version, as it is shown and as it is to be.

        Raises
        ------
        UnknownTask, UnknownLabel
        TaskExists
            Another task is shown by the name, or was learned under it.
        LabelExists
            Two classes of the task would be taken for each other.
        """
        before = find(tasks, self.task)
        if before is None:
            raise UnknownTask(f"there is no task {self.task!r}")
        for other in tasks:
            if other is not before and self.name in (other.name, other.learned_name):
                learned = "" if self.name == other.name else f", shown as {other.name!r}"
                raise TaskExists(f"there is a task {self.name!r} already{learned}")
        after = before.called(self.name, self._labels_of(before))
        looks = [look(label) for label in after.classes]
        for old, label in zip(before.classes, after.classes, strict=True):
            if label != old and (after.classes.count(label) > 1 or looks.count(look(label)) > 1):
                raise LabelExists(f"the task {after.name!r} would have two classes that read as {label!r}")
        return before, after

    def _labels_of(self, task: NamedTask) -> dict[str, str]:
        """The new labels by those that are shown; raises UnknownLabel, LabelExists."""
        found: dict[str, str] = {}
        for given, label in self.labels.items():
            known = task.label(given)
            if known is None:
                raise UnknownLabel(f"task {task.name!r} has no label {given!r}")
            if found.setdefault(known, label) != label:
                raise LabelExists(f"the label {known!r} cannot have two names")
        return found


def rename(
    vault: Vault, model: str, asked: Renaming, claim: Claim | None = None, *, by: Mapping[str, Any] | None = None
) -> tuple[Commit, bool]:
    """Show a task, or its classes, by other names; the version that does, and whether it is new: one may do so already.

    It answers what the one before does, by these names; under `publish: manual` it waits to be activated. What is
    renamed is the newest version, also where that waits.

    Parameters
    ----------
    claim
        The request that asks; the version that it made before is answered with.

    Raises
    ------
    UnknownModel, UnknownTask, UnknownLabel, TaskExists, LabelExists
    CandidatesWaiting
        Versions wait to be activated, and what is changed would answer at once.
    Unreadable, NotFound
        The version that is to be renamed cannot be read, or is missing.
    """

    def renamed(head: Commit) -> Commit:
        raise_if_made(vault, model, head, claim)
        on = approval.content_learned_on(vault.log, model, head)
        tasks = named_tasks(on)
        before, after = asked.of(tasks)
        if before == after:
            raise _Shown(_showing(vault, model, head))
        if head.candidates and head.publish == "auto":
            raise CandidatesWaiting(head.candidates)
        if after.name != before.name:
            _expect_unasked(vault, model, after)
        shown = overlay([after if one is before else one for one in tasks])
        about = {"request": claim.id if claim else None, "by": by and dict(by)}
        told = {"task": before.learned_name, "renamed": after.changed_from(before)}
        return approval.learned(on, "rename", names=shown, **told, **about)

    try:
        return append(vault, model, renamed)
    except _Shown as there:
        return there.commit, False
    except Made as there:
        return there.commit, True


class _Shown(Made):
    """Signal that a version shows these names already."""


def _showing(vault: Vault, model: str, head: Commit) -> Commit:
    """The version whose names are those that the next one would change."""
    if head.candidates:
        return vault.log.read(model, head.candidates[-1])
    return approval.answering(vault.log, model, head)


def _expect_unasked(vault: Vault, model: str, task: NamedTask) -> None:
    """Raise TaskExists where a job is open that learns another task of this name."""
    if task.name == task.learned_name:
        return
    if any(job.task == task.name for job in vault.jobs.open_jobs(model, "learn")):
        raise TaskExists(f"a job that learns {task.name!r} is open")
