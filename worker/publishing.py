"""Verification of a learned task and its publication as the next version of the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from engram.certificate import Certificate, certify, compare
from engram.checkpointing.pieces import Piece, bytes_of, hash_of
from engram.config.definition import Definition
from engram.data.reference.decoder_digest import DecoderDigest
from engram.errors import RetentionViolated, UnsupportedFormat
from engram.memory import Memory, restore
from engram.snapshot import Parts
from vault.commit_log import Commit
from vault.errors import AlreadyExists, UnknownModel
from vault.jobs.decisions import Decision
from vault.jobs.job import Job
from vault.models import Model
from vault.vault import Vault
from worker import outcome
from worker.interruption import ModelChanged

log = logging.getLogger("engram.worker")

_TRIES = 20
"""How often a commit is tried while the head moves."""


def load_memory(vault: Vault, model: Model, head: Commit) -> Memory:
    """The memory of a version with all that learning needs; a lazy method reads the most of it only when it does.

    Raises
    ------
    SnapshotError, Damaged, NotFound
    """
    assert head.recogniser is not None, "every commit names its recogniser"
    get = vault.objects.get_blob

    def piece(name: str) -> Piece:
        return Piece(name, partial(get, name))

    return restore(
        _definition(model, head),
        [piece(name) for name in head.engrams],
        get(head.recogniser),
        [piece(name) for name in head.kept],
        head.budget,
    )


def _definition(model: Model, head: Commit) -> Definition:
    """The definition of a version; raises UnsupportedFormat for one that a later release made."""
    try:
        return Definition.load(model.definition, head.decoding)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise UnsupportedFormat(f"this release cannot make the model {model.name}: {where} is not known") from error


def before_learning(vault: Vault, head: Commit, memory: Memory) -> Certificate:
    """The certificate of the model as it answers now, which has to agree with the version's own certificate.

    Raises
    ------
    RetentionViolated
        In the environment that it was certified in, the version no longer answers with the certified bytes; or its
        decoder gives other pixels than those certified, with the same libraries.
    """
    now = certify(memory)
    if head.certificate is None:
        return now
    stored = Certificate.from_dict(json.loads(vault.objects.get_blob(head.certificate)))
    decoder = _after(stored.decoder, now.decoder, head.version)
    if stored.environment != now.environment:
        log.info("version %d was certified in another environment; its digests are made again here", head.version)
    elif memory.exact and (changed := compare(stored, now)):
        raise RetentionViolated(f"{', '.join(changed)} no longer answers as certified for version {head.version}")
    return replace(now, routing=stored.routing, answers=stored.answers, decoder=decoder, classes=stored.classes)


def _after(stored: DecoderDigest | None, now: DecoderDigest | None, version: int) -> DecoderDigest | None:
    """What the decoder gives now, after what it gave when the version was certified; raises RetentionViolated."""
    if stored is None or now is None or not now.changed_since(stored):
        return now
    change = now.describe_change(stored)
    if now.pillow == stored.pillow:
        raise RetentionViolated(f"{change} Version {version} was certified with them.")
    log.warning("version %d: %s", version, change)
    return now.after(stored)


def verify(
    parts: Parts, before: Certificate, task: str, recognised: float, figures: Mapping[str, object] | None = None
) -> Certificate:
    """The new version's certificate, made from its bytes as any service will read them.

    Parameters
    ----------
    task, recognised
        The new task, and the share of its held-out images that the recogniser gives to it.
    figures
        How its classes fare, as `LearningReport.class_figures` says it.

    Raises
    ------
    RetentionViolated
        The method is exact, and some task answers the probes with other bytes than before learning.
    """
    rebuilt = restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget)
    routing = {**before.routing, task: {"recognised_when_learned": recognised}}
    classes = before.classes if figures is None else {**before.classes, task: dict(figures)}
    proof = certify(rebuilt, routing, before.answers, classes)
    if rebuilt.exact and (changed := compare(before, proof)):
        raise RetentionViolated(f"answers of {', '.join(changed)} would change; nothing was published")
    return replace(proof, decoder=before.decoder or proof.decoder)


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
            decision = Decision.after(last, head.following("learn", **blobs))
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
        known = {*self.head.engrams, *self.head.kept}

        def put(piece: bytes | Piece) -> str:
            name = hash_of(piece)
            return name if name in known else vault.objects.put_blob(bytes_of(piece))

        # The job tells apart tasks of one name that were learned on both sides of a rollback.
        entry = {"name": self.job.task, "classes": list(self.classes), "job": self.job.id}
        return {
            "engrams": tuple(map(put, self.parts.engrams)),
            "recogniser": put(self.parts.recogniser),
            "kept": tuple(map(put, self.parts.kept)),
            "certificate": put(_json(self.certificate)),
            "report": put(_json(self.report)),
            "task": self.job.task,
            "tasks": (*self.head.tasks, entry),
            "job": self.job.id,
            "token": self.token,
        }

    def _newer_head(self, vault: Vault) -> Commit:
        """The head as it is now, when what was learned still fits on top: only its budget or its target changed.

        What was learned from images that were decoded otherwise does not fit.
        """
        newer = vault.log.head(self.job.model)
        if newer is None or newer.lineage != self.head.lineage:
            raise UnknownModel(self.job.model)
        if (newer.engrams, newer.recogniser) != (self.head.engrams, self.head.recogniser):
            raise ModelChanged(f"version {newer.version} of {self.job.model} has other engrams")
        if newer.decoding != self.head.decoding:
            raise ModelChanged(f"version {newer.version} of {self.job.model} decodes images otherwise")
        return newer


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, ensure_ascii=False).encode()
