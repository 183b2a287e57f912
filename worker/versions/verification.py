"""Verification of what was learned: the tasks in question answer the probes again, as certified."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from engram.certificate import Certificate, certify, compare, disagreement
from engram.checkpointing.pieces import hash_of
from engram.config.engines import Precision
from engram.data.reference.decoder_digest import DecoderDigest
from engram.errors import RetentionViolated
from engram.memory import Memory, restore
from engram.methods import method_of
from engram.snapshot import Parts
from vault.commit_log import Commit
from worker.versions.blobs import JobBlobs
from worker.versions.engine_agreement import require_agreement

log = logging.getLogger("engram.worker")

ROTATED = 2
"""Earlier tasks that are checked again by every job, those first that were not for the longest time, where a method
reads only the tasks that it needs."""


def before_learning(
    blobs: JobBlobs, head: Commit, memory: Memory, kept: Callable[[str], bytes | None] = lambda sha: None
) -> Certificate:
    """The certificate of the model as it answers now, which has to agree with the version's own certificate.

    Of a method that is lazy, `ROTATED` tasks are asked, and the rest is taken from the version's own: what they are
    made of is named by its hash. In another environment than the certified one, all are asked.

    Parameters
    ----------
    kept
        Gives the logits that have a certified digest, where they are kept: what is compared in another environment.

    Raises
    ------
    RetentionViolated
        In the environment that it was certified in, the version no longer answers with the certified bytes, or in
        another one with nothing near them; or its decoder gives other pixels than those certified, with the same
        libraries.
    """
    lazy = memory.method.lazy
    now = certify(memory, tasks=() if lazy else None)
    if head.certificate is None:
        return replace(now, baseline="first")
    stored = Certificate.from_dict(json.loads(blobs.get(head.certificate)))
    decoder = _after(stored.decoder, now.decoder, head.version)
    elsewhere = stored.elsewhere(now)
    if lazy:
        now = certify(memory, tasks=None if elsewhere else rotated(stored))
        if not elsewhere and (elsewhere := stored.elsewhere(now)):
            now = certify(memory)
    if elsewhere:
        why = f"Version {head.version} was certified in another environment: {elsewhere}."
        now = _certified_anew(stored, now, kept, why, memory.definition.precision)
        now = replace(now, checked_in=dict.fromkeys(now.tasks, head.version))
    elif memory.exact and (changed := _changed(stored, now)):
        raise RetentionViolated(f"{', '.join(changed)} no longer answers as certified for version {head.version}")
    else:
        now = replace(now.following(stored), baseline="certified")
    return replace(
        now,
        routing=stored.routing,
        answers=stored.answers,
        decoder=decoder,
        classes=stored.classes,
        mixed_precision=stored.mixed_precision,
    )


def verify(
    parts: Parts,
    before: Certificate,
    task: str,
    recognised: float,
    figures: Mapping[str, object] | None = None,
    *,
    head: Commit | None = None,
    loaded: Collection[str] = (),
    mixed_precision: bool = False,
) -> Certificate:
    """The new version's certificate, made from its bytes as any service will read them.

    Parameters
    ----------
    task, recognised
        The new task, and the share of its held-out images that the recogniser gives to it.
    figures
        How its classes fare, as `LearningReport.class_figures` says it.
    head
        The version that was learned on. With it, of a method that is lazy, the new task is asked, those that were
        loaded, and `ROTATED` others; the rest is taken from `before`, if all engrams of `head` are there unchanged.
    loaded
        As `Method.loaded`, when all was learned.
    mixed_precision
        Whether the task was learned with that option.

    Raises
    ------
    RetentionViolated
        The method is exact, and some task answers the probes with other bytes than before learning.
    AnswersDiffer
        The model's engine answers the probes otherwise than the first one.
    """
    # A model that is only to answer reads all tasks at once, also where its method is lazy.
    kept = parts.kept if method_of(parts.definition).lazy else None
    rebuilt = restore(parts.definition, parts.engrams, parts.recogniser, kept, parts.budget)
    routing = {**before.routing, task: {"recognised_when_learned": recognised}}
    classes = before.classes if figures is None else {**before.classes, task: dict(figures)}
    asked = None
    if head is not None and rebuilt.method.lazy and not {*head.engrams} - {*map(hash_of, parts.engrams)}:
        asked = {task, *loaded, *rotated(before)}
    proof = certify(rebuilt, routing, before.answers, classes, asked)
    if rebuilt.exact and (changed := compare(before, proof) if asked is None else _changed(before, proof)):
        raise RetentionViolated(f"answers of {', '.join(changed)} would change; nothing was published")
    require_agreement(parts, rebuilt, proof.logits)
    proof = replace(
        proof,
        decoder=before.decoder or proof.decoder,
        mixed_precision=before.mixed_precision | ({task} if mixed_precision else set()),
        baseline=before.baseline,
        reason=before.reason,
        logits={**before.logits, **proof.logits},
    )
    if head is not None:
        proof = replace(proof, checked_in=dict.fromkeys(proof.tasks, head.version + 1))
    return proof if asked is None else proof.following(before)


def _certified_anew(
    stored: Certificate, now: Certificate, kept: Callable[[str], bytes | None], why: str, precision: Precision
) -> Certificate:
    """The certificate in another environment, with what it was compared with; raises RetentionViolated."""
    new = []
    for task in stored.tasks.keys() & now.tasks.keys():
        certified = kept(stored.tasks[task])
        if certified is None:
            new.append(task)
        elif now.exact and (wrong := disagreement(certified, now.logits[task], precision)) is not None:
            raise RetentionViolated(f"{why} Task {task!r} answers otherwise here: {wrong}.")
    unkept = f" The certified logits of {len(new)} tasks are not kept." if new else ""
    log.warning("%s Its digests are made again here.%s", why, unkept)
    return replace(now, baseline="new" if new else "close", reason=f"{why}{unkept}")


def _changed(stored: Certificate, now: Certificate) -> list[str]:
    """The tasks that were asked now and no longer answer as certified."""
    return [task for task in compare(stored, now) if task in now.tasks]


def rotated(certificate: Certificate, count: int = ROTATED) -> list[str]:
    """The tasks that were last checked the longest time ago, earlier ones first."""
    checked = certificate.checked_in
    return sorted(certificate.tasks, key=lambda task: checked.get(task, -1))[:count]


def _after(stored: DecoderDigest | None, now: DecoderDigest | None, version: int) -> DecoderDigest | None:
    """What the decoder gives now, after what it gave when the version was certified; raises RetentionViolated."""
    if stored is None or now is None or not now.changed_since(stored):
        return now
    change = now.describe_change(stored)
    if now.pillow == stored.pillow:
        raise RetentionViolated(f"{change} Version {version} was certified with them.")
    log.warning("version %d: %s", version, change)
    return now.after(stored)
