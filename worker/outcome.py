"""Outcome of a job: decided once, and carried out by whichever process finds it decided."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from vault.commit_log import Commit
from vault.errors import AlreadyExists, Conflict, JobOver, NotFound, StoreUnavailable, Unreadable
from vault.jobs.decisions import Decision, JobEnding
from vault.jobs.job import Job
from vault.vault import Vault
from worker import metrics
from worker.interruption import EndReason

_TRIES = 20
"""How often a decision is tried; each that is in vain means that somebody else decided."""


def made(vault: Vault, job: Job) -> Commit | None:
    """The version of `job`, when an attempt got as far as that or as deciding it; it is in the log then.

    Raises
    ------
    JobOver
        It was decided that the job ends without one; it has that result then.
    UnknownJob
        It was over, and was swept.
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
    JobOver, UnknownJob, UnknownModel, UnknownVersion
        As `made`.
    """
    if decision is not None and (ending := decision.ending) is not None:
        known = vault.jobs.get(job.id).over
        done = vault.jobs.finish(job.id, ending.state, error=ending.error)
        if not known:
            metrics.ended(done)
        raise JobOver(job.id)
    if decision is None or decision.commit is None:
        return None
    commit = decision.commit
    # A sweep removes the request first: while it is there, no decision before this one can be gone.
    vault.jobs.check_there(job.id)
    try:
        vault.log.append(job.model, commit)
    except Conflict:
        with suppress(Unreadable, NotFound):
            there = vault.log.read(job.model, commit.version)
            if there.job == job.id:  # by an attempt that may have ended before it could tell anybody
                vault.events.publish_version(job.model, commit.version)
                return there
        return None
    vault.events.publish_version(job.model, commit.version)
    return commit


def result(vault: Vault, commit: Commit) -> dict[str, Any]:
    """The result of a job that made the version `commit`; without its report where that cannot be read any more.

    `candidate` is there, and true, where somebody is to activate the version.
    """
    report = None
    with suppress(Unreadable, NotFound):
        report = json.loads(vault.objects.get_blob(commit.report)) if commit.report else None
    found = {"version": commit.version, "task": commit.task, "report": report}
    return found if commit.active is None else {**found, "candidate": True}


def end(vault: Vault, job: Job, why: EndReason, token: int | None = None) -> Job:
    """End a job without a version; one that has made a version before, or is about to, has succeeded all the same.

    Parameters
    ----------
    token
        The attempt that asks.

    Raises
    ------
    LeaseLost
        A later attempt has begun.
    UnknownJob
        It was over, and was swept.
    StoreUnavailable
        Decisions are taken and cannot be read.
    """
    ending = JobEnding("cancelled" if why.cancelled else "failed", {"code": why.code, "detail": why.detail})
    for _ in range(_TRIES):
        try:
            if token is not None:
                vault.jobs.check_token(job.id, token)
        except JobOver:
            return vault.jobs.get(job.id)
        last = vault.jobs.decisions.last(job.id)
        if last is not None and last.ending is not None:
            return vault.jobs.finish(job.id, last.ending.state, error=last.ending.error)
        if (done := _made_all_the_same(vault, job, last)) is not None:
            return vault.jobs.finish(job.id, "succeeded", result=result(vault, done), token=token)
        # What was decided so far came to nothing, and stays so: another commit has its place in the log for ever.
        with suppress(AlreadyExists):
            vault.jobs.decisions.create(job.id, Decision.after(last, ending))
            return vault.jobs.finish(job.id, ending.state, error=ending.error)
    raise StoreUnavailable(f"What was decided of the job {job.id} cannot be told.")


def _made_all_the_same(vault: Vault, job: Job, last: Decision | None) -> Commit | None:
    """As `made`; None where that cannot be told, since the job must end although its model is damaged or gone."""
    vault.jobs.check_there(job.id)
    with suppress(NotFound, Unreadable):
        return find(vault, job) or carry_out(vault, job, last)
    return None
