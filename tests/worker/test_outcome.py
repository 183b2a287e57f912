"""Tests of the one outcome of a job, whenever those who work on it act, stand still or die."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from engram.config.definition import Definition
from engram.errors import Cancelled
from engram.snapshot import Parts
from testing.data.digits import SMALL_MODEL
from testing.processes.turns import Actor, TurnTakingBackend, interleave
from vault.commit_log import Commit
from vault.errors import Conflict, JobOver, LeaseLost, ModelExists, UnknownJob
from vault.jobs.job import Job
from vault.maintenance.sweep import SweepAges
from vault.storage.local import LocalBackend
from vault.storage.object_store import ObjectStore
from vault.vault import Vault
from worker import outcome
from worker.interruption import EndReason, ModelChanged
from worker.versions.publishing import Publication

CANCELLED = EndReason("cancelled", "The job was cancelled.", cancelled=True)
FAILED = EndReason("job_timeout", "It took too long.")
GIVEN_UP = EndReason("too_many_attempts", "They broke off.")


def publish(vault: Vault, job: Job, name: str = "", unlucky: bool = False) -> None:
    """An attempt that has learned something, and publishes it unless the job is to be cancelled."""
    token = vault.jobs.start_attempt(job.id, name)
    head = vault.log.head(job.model)
    assert head is not None

    def settle() -> None:
        if not unlucky and vault.jobs.cancel_requested(job.id):
            raise Cancelled("stopped before the commit")

    done = outcome.made(vault, job)
    if done is None:
        learned = (job.id.encode(), name.encode())
        parts = Parts(Definition.model_validate(SMALL_MODEL), learned, b"recogniser", (), {})
        try:
            done = Publication(job, token, head, parts, ("zero", "one"), {}, {}).publish(vault, settle)
        except Cancelled:
            outcome.end(vault, job, CANCELLED, token)
            return
    if not unlucky:
        vault.jobs.finish(job.id, "succeeded", result=outcome.result(vault, done), token=token)


def publish_too(vault: Vault, job: Job) -> None:
    """Another one: it cannot tell whether the job is to be cancelled, and dies before it can tell of its version."""
    publish(vault, job, "other", unlucky=True)


def fail(vault: Vault, job: Job) -> None:
    """An attempt that fails."""
    outcome.end(vault, job, FAILED, vault.jobs.start_attempt(job.id, "fails"))


def give_up(vault: Vault, job: Job) -> None:
    """Nobody tries any more."""
    outcome.end(vault, job, GIVEN_UP)


def cancel(vault: Vault, job: Job) -> None:
    vault.jobs.request_cancel(job.id)


def raise_budget(vault: Vault, job: Job) -> None:
    """Something else that moves the head."""
    for _ in range(2):
        head = vault.log.head(job.model)
        assert head is not None
        with suppress(Conflict):
            vault.log.append(job.model, head.following("budget"))


Act = Callable[[Vault, Job], None]
ACTS: tuple[Act, ...] = (publish, publish_too, fail, give_up, cancel, raise_budget)


def actor(vault: Vault, job: Job, act: Act) -> Actor:
    """One who acts as `act`, in a process of its own as far as the vault can tell."""

    def run(turn: Callable[[], None]) -> None:
        root = vault.settings.store_folder
        assert root is not None
        own = Vault(vault.settings, ObjectStore(TurnTakingBackend(LocalBackend(root), turn)), vault.redis)
        with suppress(JobOver, LeaseLost, ModelChanged, UnknownJob):
            act(own, job)

    return Actor(run)


def bring_to_an_end(vault: Vault, job: Job) -> Job:
    """What workers do with what the others have left."""
    for number in itertools.count():
        if (now := vault.jobs.get(job.id)).over:
            return now
        assert number < 5, "the job does not end"
        with suppress(JobOver, ModelChanged):
            publish(vault, job, "last")
    raise AssertionError


def check(vault: Vault, job: Job) -> None:
    """A success and one version, or neither; and a log without gaps."""
    done = bring_to_an_end(vault, job)
    commits = vault.log.list(job.model)
    assert [commit.version for commit in commits] == list(range(len(commits)))
    versions = [commit.version for commit in commits if commit.job == job.id]
    assert versions == ([(done.result or {})["version"]] if done.state == "succeeded" else [])
    assert vault.jobs.open_jobs(job.model) == []


def submitted(vault: Vault, tried: bool) -> Job:
    """A job of a model of its own."""
    model = vault.models.create(f"model-{uuid.uuid4().hex}", {})
    vault.log.append(model.name, Commit.first(model, engrams=("commons",), recogniser="recogniser"))
    job = vault.jobs.submit(model.name, "zero-one", "s3://elsewhere/data.zip", {})
    if tried:  # then cancelling is left to workers
        vault.jobs.start_attempt(job.id, "before")
    return job


LATE = (publish, give_up, cancel)
"""A failure ends a job as giving up does, and the head is moved under the others too."""


@pytest.mark.parametrize(
    ("late", "other"),
    [
        pytest.param(*pair, marks=() if pair[0] in LATE and pair[1] is not fail else pytest.mark.slow)
        for pair in itertools.permutations(ACTS, 2)
        if pair[0] is not publish_too
    ],
    ids=lambda act: act.__name__,
)
def test_one_stands_still_at_any_call_while_another_does_all_it_has_to(vault: Vault, late: Act, other: Act) -> None:
    """Then it goes on, or has died there."""
    for dies, tried in itertools.product([False, True], [False, True]):
        if tried and cancel not in (late, other):
            continue  # it makes no difference to these
        for at in itertools.count(1):
            job = submitted(vault, tried)
            first, second = actor(vault, job, late), actor(vault, job, other)
            while first.calls < at and not first.over:
                first.step()
            interleave([second], random.Random(0))
            if dies:
                first.kill()
            interleave([first], random.Random(0))
            check(vault, job)
            if first.calls < at:
                break


def test_one_stands_still_until_its_job_is_over_and_swept(vault: Vault) -> None:
    """Then nothing is known of the job any more, and nothing is published for it."""
    for at in itertools.count(1):
        job = submitted(vault, tried=True)
        late = actor(vault, job, publish)
        while late.calls < at and not late.over:
            late.step()
        published = outcome.end(vault, job, CANCELLED).state == "succeeded"
        vault.sweep(replace(SweepAges.all(timedelta(seconds=-1)), blobs=timedelta(hours=1)))
        interleave([late], random.Random(0))
        assert [commit.job for commit in vault.log.list(job.model)] == [None, *[job.id] * published]
        assert not vault.objects.exists(f"jobs/{job.id}/request.json")
        if late.calls < at:
            break


def test_a_model_made_again_keeps_its_jobs(vault: Vault) -> None:
    """Whoever deletes a model may stand still between that and the end of its jobs."""
    for at in itertools.count(1):
        old = submitted(vault, tried=False)
        late = actor(vault, old, lambda own, job: own.delete_model(job.model))
        while late.calls < at and not late.over:
            late.step()
        with suppress(ModelExists):
            again = vault.models.create(old.model, {"again": True})
            job = vault.jobs.submit(old.model, "zero-one", "s3://elsewhere/data.zip", {}, lineage=again.lineage)
            interleave([late], random.Random(0))
            assert not vault.jobs.get(job.id).cancel_requested
        interleave([late], random.Random(0))
        assert vault.jobs.get(old.id).state == "cancelled"
        if late.calls < at:
            break


def explore(vault: Vault, seed: int) -> str:
    """Try an order by chance; the state that the job ends in."""
    chance = random.Random(seed)
    job = submitted(vault, chance.random() < 0.5)
    actors = [actor(vault, job, act) for act in chance.sample(ACTS, chance.choice((2, 2, 3)))]
    if chance.random() < 0.3:
        actors[0].dies_at = chance.randrange(1, 24)
    interleave(actors, chance)
    check(vault, job)
    return vault.jobs.get(job.id).state


def test_a_job_has_one_outcome_in_any_order(vault: Vault) -> None:
    assert {explore(vault, seed) for seed in range(100)} == {"succeeded", "failed", "cancelled"}
