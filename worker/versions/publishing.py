"""Loading of versions, and publication of what was learned as the next one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from engram.config.definition import Definition
from engram.errors import UnsupportedFormat
from engram.memory import Memory, restore
from engram.methods import method_of
from engram.snapshot import Parts
from vault import approval
from vault.classes.names import is_shown_elsewhere
from vault.commit_log import Commit
from vault.errors import AlreadyExists, UnknownModel
from vault.jobs.decisions import Decision
from vault.jobs.job import Job
from vault.models import Model
from vault.vault import Vault
from worker import outcome
from worker.interruption import ModelChanged
from worker.versions.blobs import JobBlobs

log = logging.getLogger("engram.worker")

_TRIES = 20
"""How often a commit is tried while the head moves."""


def load_memory(vault: Vault, model: Model, head: Commit, blobs: JobBlobs | None = None) -> Memory:
    """The memory of a version with all that learning needs; a lazy method reads the most of it only when it does.

    Parameters
    ----------
    blobs
        What counts that which is read, now and later.

    Raises
    ------
    SnapshotError, Damaged, NotFound
        Lazy methods raise the two latter when they read, too.
    """
    assert head.recogniser is not None, "every commit names its recogniser"
    blobs = JobBlobs(vault.objects) if blobs is None else blobs
    definition = _definition(model, head)
    # A lazy method's engrams are read again, when the new version is verified; networks are loaded once a process.
    lazy = method_of(definition).lazy
    return restore(
        definition,
        [blobs.piece(name, remember=lazy and name not in head.backbones) for name in head.engrams],
        blobs.get(head.recogniser),
        [blobs.piece(name) for name in head.kept],
        head.budget,
    )


def load_to_answer(model: Model, commit: Commit, blobs: JobBlobs, beside: Memory | None = None) -> Memory:
    """The memory of a version that only answers, as services load it.

    Parameters
    ----------
    beside
        Another version of the model, with which equal parts are shared.

    Raises
    ------
    SnapshotError, Damaged, NotFound
    """
    assert commit.recogniser is not None, "every commit names its recogniser"
    engrams = [blobs.piece(name) for name in commit.engrams]
    return restore(
        _definition(model, commit), engrams, blobs.get(commit.recogniser), None, dict(commit.budget), reuse=beside
    )


def _definition(model: Model, head: Commit) -> Definition:
    """The definition of a version; raises UnsupportedFormat for one that a later release made."""
    try:
        return Definition.load(model.definition, head.decoding)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnsupportedFormat(f"this release cannot make the model {model.name}: {where} is not known") from error


@dataclass(frozen=True)
class Publication:
    """Content of the version that an attempt is about to publish on top of `head`."""

    job: Job
    token: int
    head: Commit
    parts: Parts
    classes: tuple[str, ...]
    """Those of the new task."""
    certificate: Mapping[str, Any]
    report: Mapping[str, Any]
    """What was read and written is put into it when it is stored."""
    blobs: JobBlobs | None = None
    """What counts that; by default what is written from now on."""
    logits: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """For each task that was asked what it answered, which is kept beside its digest."""

    def publish(self, vault: Vault, settle: Callable[[], object] = lambda: None) -> Commit:
        """Decide that the commit is the job's version, append it, and publish a notice of it.

        Parameters
        ----------
        settle
            Called when all is stored and only the commit is left to do; what it raises stops that.

        Raises
        ------
        LeaseLost, JobOver
            A later attempt at the job has begun, or the job has a result or was decided to have one.
        ModelChanged
            The head has other engrams than those that were learned on.
        UnknownModel
            The model was deleted.
        """
        blobs = self._store(vault)
        settle()
        head = self.head
        for _ in range(_TRIES):
            vault.jobs.check_token(self.job.id, self.token)
            last = vault.jobs.decisions.last(self.job.id)
            if (done := outcome.carry_out(vault, self.job, last)) is not None:
                return done
            decision = Decision.after(last, approval.learned(head, **blobs))
            try:
                vault.jobs.decisions.create(self.job.id, decision)
            except AlreadyExists:
                continue
            if (done := outcome.carry_out(vault, self.job, decision)) is not None:
                return done
            head = self._newer_head(vault)
            log.info("job %s: the head moved to version %d, trying on top of it", self.job.id, head.version)
        raise ModelChanged(f"the log of {self.job.model} moved {_TRIES} times")

    def _store(self, vault: Vault) -> dict[str, Any]:
        """The commit's content, its blobs stored; what the head names already is not stored again."""
        blobs, head = JobBlobs(vault.objects) if self.blobs is None else self.blobs, self.head

        # The job tells apart tasks of one name that were learned on both sides of a rollback.
        entry = {"name": self.job.task, "classes": list(self.classes), "job": self.job.id}
        engrams = tuple(blobs.put("engram", piece, head) for piece in self.parts.engrams)
        recogniser = blobs.put("recogniser", self.parts.recogniser, head)
        model = vault.models.get(self.job.model)
        for answers in self.logits.values():
            vault.answers.put(model, answers)
        certificate = vault.certificates.document(self.certificate, model, head, engrams, recogniser)
        return {
            "engrams": engrams,
            "recogniser": recogniser,
            "kept": tuple(blobs.put("kept", piece, head) for piece in self.parts.kept),
            "certificate": blobs.put("certificate", certificate, head),
            "signature": vault.certificates.sign(certificate),
            "report": blobs.put("report", _json({**self.report, **blobs.figures()}), head),
            "task": self.job.task,
            # An adopted network's task stands there already when images of its classes are learned.
            "tasks": (*(task for task in self.head.tasks if task["name"] != self.job.task), entry),
            "job": self.job.id,
            "token": self.token,
        }

    def _newer_head(self, vault: Vault) -> Commit:
        """The head as it is now, when what was learned still fits on top: only its budget, names or target changed.

        What was learned from images that were decoded otherwise does not fit, nor does a task whose name another shows.
        """
        newer = approval.learned_on(vault.log, self.job.model)
        if newer is None or newer.lineage != self.head.lineage:
            raise UnknownModel(self.job.model)
        if (newer.engrams, newer.recogniser) != (self.head.engrams, self.head.recogniser):
            raise ModelChanged(f"version {newer.version} of {self.job.model} has other engrams")
        if newer.decoding != self.head.decoding:
            raise ModelChanged(f"version {newer.version} of {self.job.model} decodes images otherwise")
        if is_shown_elsewhere(newer, self.job.task):
            raise ModelChanged(f"version {newer.version} of {self.job.model} shows another task as {self.job.task!r}")
        return newer


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()
