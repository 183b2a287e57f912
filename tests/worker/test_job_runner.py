"""Tests of the job runner: leases, attempts and retries."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from service.models import versions
from testing.data.models import MODEL, create, learn, submit, worker_settings
from testing.servers.redis import RedisServer
from testing.servers.service import wait_until
from vault.coordination.leases import Leases
from vault.settings import VaultSettings
from vault.vault import Vault
from worker.background import Reconciler
from worker.instrumentation import PhaseRecorder
from worker.job_runner import JobRunner

LONG: dict[str, Any] = {"epochs": 1000, "patience": 1000}


def runner(vault: Vault, **changes: object) -> JobRunner:
    return JobRunner(vault, worker_settings(vault, **changes))


@contextmanager
def working(subject: JobRunner, model: str = MODEL) -> Iterator[threading.Thread]:
    """A job runner at work in a thread, which is stopped at the end."""
    thread = threading.Thread(target=subject.work, args=(model,))
    thread.start()
    try:
        yield thread
    finally:
        subject.stopping.set()
        thread.join(60)
        assert not thread.is_alive(), "the job runner did not stop"


def wait_for(vault: Vault, job: str, *states: str) -> None:
    deadline = time.monotonic() + 60
    while vault.jobs.get(job).state not in states:
        assert time.monotonic() < deadline, vault.jobs.get(job)
        time.sleep(0.02)


def test_jobs_of_a_model_are_done_in_their_order(ready: Vault) -> None:
    jobs = [submit(ready, task, digits) for task, digits in (("a", (0, 1)), ("b", (2, 3)), ("c", (4, 5)))]
    runner(ready).work(MODEL)
    results = [ready.jobs.get(job.id).result for job in jobs]
    assert [result and result["version"] for result in results] == [1, 2, 3]
    assert ready.leases.holder(MODEL) is None


def test_a_lease_that_is_taken_sends_others_away(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1))
    lease = ready.leases.acquire(MODEL, "another")
    assert lease is not None
    runner(ready).work(MODEL)
    assert ready.jobs.get(job.id).state == "queued"
    lease.release()
    runner(ready).work(MODEL)
    assert ready.jobs.get(job.id).state == "succeeded"


def test_a_job_at_work_shows_as_running(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1), **LONG)
    with working(runner(ready)):
        wait_for(ready, job.id, "running")
        holder = ready.leases.holder(MODEL)
        assert holder is not None
        assert holder.job == job.id


def test_a_job_runner_that_stops_leaves_its_job_to_the_next(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1), **LONG)
    for number in range(1, 6):
        with working(runner(ready, max_attempts=2)):
            wait_for(ready, job.id, "running")
        assert ready.leases.holder(MODEL) is None
        attempts = ready.jobs.attempts(job.id)
        assert [attempt.released for attempt in attempts] == [True] * number
    assert not ready.jobs.get(job.id).over


def test_attempts_that_broke_off_are_counted(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1))
    for _ in range(2):
        ready.jobs.start_attempt(job.id)
    next_one = submit(ready, "b", (2, 3))
    runner(ready, max_attempts=2).work(MODEL)
    done = ready.jobs.get(job.id)
    assert (done.state, done.error and done.error["code"]) == ("failed", "too_many_attempts")
    assert ready.jobs.get(next_one.id).state == "succeeded"
    assert ready.objects.list("data") == []


def keep_moving(vault: Vault, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve the versions 0 and 1 by turns, `times` times, each time when a task begins to be trained."""
    enter, numbers = PhaseRecorder.enter, iter(range(times))

    def entered(self: PhaseRecorder, name: str) -> None:
        enter(self, name)
        if name == "training" and (number := next(numbers, None)) is not None:
            versions.activate(vault, MODEL, number % 2, allow_empty=True)

    monkeypatch.setattr(PhaseRecorder, "enter", entered)


def test_a_model_that_moved_counts_not_as_broken_off(ready: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    learn(ready, "low", (0, 1))
    job = submit(ready, "mid", (2, 3))
    keep_moving(ready, 2, monkeypatch)
    runner(ready, max_attempts=1).work(MODEL)
    done = ready.jobs.get(job.id)
    assert (done.state, done.attempts, done.error) == ("succeeded", 3, None)
    assert [attempt.released for attempt in ready.jobs.attempts(job.id)] == [True, True, False]
    head = ready.log.head(MODEL)
    assert head is not None
    assert [task["name"] for task in head.tasks] == ["low", "mid"]


def test_a_model_that_never_rests_ends_the_job(ready: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.job_runner.MOST_CHANGES", 1)
    learn(ready, "low", (0, 1))
    job = submit(ready, "mid", (2, 3))
    keep_moving(ready, 2, monkeypatch)
    runner(ready).work(MODEL)
    done = ready.jobs.get(job.id)
    assert (done.state, done.attempts, done.error and done.error["code"]) == ("failed", 2, "model_moved")
    assert ready.objects.list("data") == []


def test_a_job_cancelled_while_nobody_worked_on_it_is_ended(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1))
    ready.jobs.start_attempt(job.id)
    ready.jobs.request_cancel(job.id)
    assert not ready.jobs.get(job.id).over
    runner(ready).work(MODEL)
    assert ready.jobs.get(job.id).state == "cancelled"


def test_a_lease_lost_to_another_stops_the_work(ready: Vault) -> None:
    job = submit(ready, "a", (0, 1), **LONG)
    another = Leases(ready.redis, 600)
    # Its heartbeat, every third of this, must not be late by the whole of it.
    with (
        Vault.connect(ready.settings.model_copy(update={"lease_seconds": 6})) as quick,
        working(JobRunner(quick, worker_settings(quick))) as thread,
    ):
        wait_for(ready, job.id, "running")
        while (other := another.acquire(MODEL, "another", job.id)) is None:
            ready.redis.delete("engram:lease:digits")  # which the heartbeat may bring back
        thread.join(60)
        assert not thread.is_alive()
        holder = ready.leases.holder(MODEL)
        assert holder is not None
        assert holder.owner == "another"
        other.release()
    assert not ready.jobs.get(job.id).over
    assert [attempt.released for attempt in ready.jobs.attempts(job.id)] == [True], "Redis forgot the lease"


def test_losing_all_of_redis_does_not_disturb_the_work(vault_settings: VaultSettings, own_redis: RedisServer) -> None:
    settings = vault_settings.model_copy(update={"redis_url": own_redis.url, "lease_seconds": 1})
    with Vault.connect(settings) as vault:
        create(vault)
        job = submit(vault, "a", (0, 1), epochs=150, patience=150)
        with working(runner(vault)) as thread:
            wait_for(vault, job.id, "running")
            own_redis.stop()
            time.sleep(0.3)
            own_redis.start()
            thread.join(120)
        done = vault.jobs.get(job.id)
        assert (done.state, done.attempts) == ("succeeded", 1)


def test_two_job_runners_do_each_job_once(ready: Vault) -> None:
    create(ready, "other")
    jobs = [submit(ready, f"t{n}", (0, 1), (MODEL, "other")[n % 2]) for n in range(4)]
    runners = [runner(ready), runner(ready)]
    threads = [threading.Thread(target=one.work, args=(model,)) for one in runners for model in (MODEL, "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [ready.jobs.get(job.id) for job in jobs]
    assert {(job.state, job.attempts) for job in found} == {("succeeded", 1)}


@pytest.fixture
def woken(ready: Vault) -> Iterator[list[str]]:
    woken: list[str] = []
    subject = runner(ready)
    reconciler = Reconciler(ready, subject, woken.append, 0.1)
    reconciler.start()
    try:
        yield woken
    finally:
        reconciler.stop()


def test_open_jobs_that_nobody_works_on_are_looked_for(ready: Vault, woken: list[str]) -> None:
    time.sleep(0.3)
    assert woken == []
    create(ready, "other")
    submit(ready, "a", (0, 1))
    wait_until(lambda: MODEL in woken, 60)
    lease = Leases(ready.redis, 600).acquire(MODEL, "somebody")
    assert lease is not None
    # Each look that finds this job began when the lease was there.
    submit(ready, "b", (0, 1), "other")
    wait_until(lambda: woken.count("other") >= 3, 60)
    assert MODEL not in woken[woken.index("other") :]
    lease.release()


def test_what_nobody_foresaw_is_told_and_the_work_is_done_at_the_next_look(
    ready: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, subject = submit(ready, "a", (0, 1)), runner(ready)
    with monkeypatch.context() as broken:
        broken.setattr(ready.jobs, "attempts", lambda job_id: [][0])
        subject.work(MODEL)
    assert "the work ended in a way nobody foresaw" in caplog.text
    assert "IndexError" in caplog.text
    assert (ready.jobs.get(job.id).state, ready.leases.holder(MODEL)) == ("queued", None)
    subject.work(MODEL)
    assert ready.jobs.get(job.id).state == "succeeded"
