"""What becomes of a job: a version, or an end without one; decided once, and done by whoever comes across it."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from vault.decisions import Decision, Ending
from vault.errors import AlreadyExists, Conflict, JobOver, NotFound, StoreUnavailable, Unreadable
from vault.job import Job
from vault.log import Commit
from vault.vault import Vault
from worker.interruption import End

_TRIES = 20


def made(vault: Vault, job: Job) -> Commit | None:
    """The version of `job`, when an attempt got as far as that or as deciding it; it is in the log then.

    Raises
    ------
    JobOver
        It was decided that the job ends without one; it has that result then.
    UnknownModel, UnknownVersion
        What was decided cannot be done, since the model or the version before is gone.
    """
    return find(vault, job) or carry_out(vault, job, vault.jobs.decisions.last(job.id))


def find(vault: Vault, job: Job) -> Commit | None:
    """The version of `job` in the log."""
    return vault.log.find(job.model, job.created_at, lambda commit: commit.job == job.id)


def carry_out(vault: Vault, job: Job, decision: Decision | None) -> Commit | None:
    """Do what was decided, unless it is done; the job's version, or None when nothing is decided.

    That is so also when the log has another commit where the version was to be.

    Raises
    ------
    JobOver, UnknownModel, UnknownVersion
        As `made`.
    """
    if decision is not None and decision.ending is not None:
        vault.jobs.finish(job.id, decision.ending.state, error=decision.ending.error)
        raise JobOver(job.id)
    if decision is None or decision.commit is None:
        return None
    commit = decision.commit
    try:
        vault.log.append(job.model, commit)
    except Conflict:
        with suppress(Unreadable, NotFound):
            there = vault.log.read(job.model, commit.version)
            return there if there.job == job.id else None
        return None
    vault.events.publish_version(job.model, commit.version)
    return commit


def result(vault: Vault, commit: Commit) -> dict[str, Any]:
    """What a job's record says of the version it made; without a report that cannot be read any more."""
    report = None
    with suppress(Unreadable, NotFound):
        report = json.loads(vault.objects.get_blob(commit.report)) if commit.report else None
    return {"version": commit.version, "task": commit.task, "report": report}


def end(vault: Vault, job: Job, why: End, token: int | None = None) -> Job:
    """End a job without a version; one that has made a version before, or is about to, has succeeded all the same.

    Parameters
    ----------
    token
        The attempt that asks.

    Raises
    ------
    LeaseLost
        A later attempt has begun.
    StoreUnavailable
        Decisions are taken and cannot be read.
    """
    ending = Ending("cancelled" if why.cancelled else "failed", {"code": why.code, "detail": why.detail})
    try:
        for _ in range(_TRIES):
            if token is not None:
                vault.jobs.check_token(job.id, token)
            last = vault.jobs.decisions.last(job.id)
            # Where the model or its log is damaged or gone that cannot be told, and the job must end all the same.
            done = None
            with suppress(NotFound, Unreadable):
                done = find(vault, job) or carry_out(vault, job, last)
            if done is not None:
                return vault.jobs.finish(job.id, "succeeded", result=result(vault, done), token=token)
            with suppress(AlreadyExists):
                vault.jobs.decisions.create(job.id, Decision.after(last, ending))
                return vault.jobs.finish(job.id, ending.state, error=ending.error)
    except JobOver:
        return vault.jobs.get(job.id)
    raise StoreUnavailable(f"What was decided of the job {job.id} cannot be told.")
