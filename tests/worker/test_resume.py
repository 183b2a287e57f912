"""Tests of jobs that are resumed from checkpoints, and of jobs that must not go on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from engram.memory import Memory
from testing.data.models import MODEL, create, submit, worker_settings
from vault.jobs.checkpoints import JobCheckpoints
from vault.jobs.job import Job
from vault.vault import Vault
from worker import job_runner, resources
from worker.attempt import run_attempt
from worker.checkpoints import StoredCheckpoints
from worker.instrumentation import PhaseRecorder
from worker.interruption import EndReason, Interrupted, Interruption, Watchdog
from worker.job_runner import JobRunner

Stops = Callable[[int], Callable[[], bool]]

SLOW: dict[str, Any] = {"epochs": 6, "patience": 6, "batch_size": 8, "rounds": 2, "recovery_epochs": 1}


def run(vault: Vault, job: Job, stop: Any = lambda: False, **changes: Any) -> Job:
    token = vault.jobs.start_attempt(job.id)
    return run_attempt(vault, job, token, stop, worker_settings(vault, **changes))


def contents(vault: Vault, model: str = MODEL) -> tuple[Any, ...]:
    head = vault.log.head(model)
    assert head is not None
    return head.version, head.engrams, head.recogniser, head.kept


@pytest.fixture
def in_training(monkeypatch: pytest.MonkeyPatch) -> Stops:
    """Makes the function that asks the work to stop, when it is called for the so-manyeth time while a task is trained.

    The watchdog, which asks from a thread of its own, is neither counted nor answered so.
    """
    enter, phase = PhaseRecorder.enter, ""

    def entered(self: PhaseRecorder, name: str) -> None:
        nonlocal phase
        enter(self, name)
        phase = name

    monkeypatch.setattr(PhaseRecorder, "enter", entered)

    def after(times: int) -> Callable[[], bool]:
        asked = 0

        def stop() -> bool:
            nonlocal asked
            if threading.current_thread() is not threading.main_thread():
                return False
            asked += phase == "training"
            return asked >= times

        return stop

    return after


def test_an_attempt_goes_on_from_the_last_one_and_gives_the_same_version(ready: Vault, in_training: Stops) -> None:
    create(ready, "undisturbed")
    assert run(ready, submit(ready, "low", (0, 1), "undisturbed", **SLOW)).state == "succeeded"
    job = submit(ready, "low", (0, 1), **SLOW)
    with pytest.raises(Interrupted):
        run(ready, job, in_training(80), checkpoint_seconds=0.001)
    assert ready.objects.list(f"jobs/{job.id}/checkpoint")
    done = run(ready, job)
    assert done.result is not None
    assert done.result["report"]["resumed"] == 1
    assert contents(ready) == contents(ready, "undisturbed")
    assert ready.objects.list(f"jobs/{job.id}/checkpoint") == []


def test_what_was_learned_on_another_version_does_not_count(
    ready: Vault, in_training: Stops, caplog: pytest.LogCaptureFixture
) -> None:
    job = submit(ready, "mid", (2, 3), **SLOW)
    with pytest.raises(Interrupted):
        run(ready, job, in_training(60), checkpoint_seconds=0.001)
    assert run(ready, submit(ready, "low", (0, 1))).state == "succeeded"
    done = run(ready, job)
    assert done.result is not None
    assert (done.result["version"], done.result["report"]["resumed"]) == (2, 0)
    assert "another version" in caplog.text


def test_an_attempt_that_got_further_does_not_count_as_broken_off(ready: Vault, in_training: Stops) -> None:
    job = submit(ready, "low", (0, 1), **SLOW)
    soon = in_training(40)

    def die() -> bool:
        if soon():
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run(ready, job, die, checkpoint_seconds=0.001)
    JobRunner(ready, worker_settings(ready, max_attempts=1)).work(MODEL)
    done = ready.jobs.get(job.id)
    assert done.state == "succeeded"
    assert done.result is not None
    assert done.result["report"]["resumed"] == 1


def test_a_worker_that_is_to_stop_leaves_what_it_has_done_once(ready: Vault) -> None:
    head = ready.log.head(MODEL)
    assert head is not None
    job, stopping = submit(ready, "low", (0, 1)), threading.Event()
    store = JobCheckpoints(ready.objects, ready.jobs, job.id, ready.jobs.start_attempt(job.id))
    checkpoints = StoredCheckpoints(store, head, 30.0, stopping.is_set, resume=True)
    assert not checkpoints.due(1.0)
    assert checkpoints.due(30.0)
    stopping.set()
    assert checkpoints.due(1.0)
    assert not checkpoints.due(1.1)


def test_the_last_attempt_begins_at_the_beginning(ready: Vault, in_training: Stops) -> None:
    job = submit(ready, "low", (0, 1), **SLOW)
    with pytest.raises(Interrupted):
        run(ready, job, in_training(40), checkpoint_seconds=0.001)
    ready.jobs.start_attempt(job.id)
    JobRunner(ready, worker_settings(ready, max_attempts=2)).work(MODEL)
    done = ready.jobs.get(job.id)
    assert done.result is not None
    assert done.result["report"]["resumed"] == 0


def test_a_poison_job_comes_to_its_end_however_many_checkpoints_it_leaves(
    ready: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter, attempts = PhaseRecorder.enter, 0

    def entered(self: PhaseRecorder, name: str) -> None:
        nonlocal attempts
        enter(self, name)
        if name != "verifying":
            return
        attempts += 1
        if attempts > 12:
            pytest.fail("there is no end of attempts")
        raise RuntimeError("it cannot be learned")

    monkeypatch.setattr(PhaseRecorder, "enter", entered)
    monkeypatch.setattr(job_runner, "_PAUSES", (0.0,))
    job = submit(ready, "low", (0, 1), **SLOW)
    JobRunner(ready, worker_settings(ready, max_attempts=3, checkpoint_seconds=0.05)).work(MODEL)
    done = ready.jobs.get(job.id)
    assert (done.state, done.error and done.error["code"]) == ("failed", "too_many_attempts")
    assert attempts >= 3
    assert ready.objects.list(f"jobs/{job.id}/checkpoint") == []


PHASES = ("loading", "training", "pruning", "recovering", "freezing", "recognising", "verifying", "publishing")


@pytest.mark.parametrize("phase", PHASES)
def test_a_cancel_takes_effect_in_every_phase(ready: Vault, phase: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(ready, "low", (0, 1), **SLOW)
    enter, asked_at = PhaseRecorder.enter, 0.0

    def entered(self: PhaseRecorder, name: str) -> None:
        nonlocal asked_at
        enter(self, name)
        if name == phase and not asked_at:
            ready.jobs.request_cancel(job.id)
            asked_at = time.process_time()  # what others do with the processors does not count

    monkeypatch.setattr(PhaseRecorder, "enter", entered)
    done = run(ready, job, cancel_seconds=0.001)
    assert asked_at
    assert time.process_time() - asked_at < 8
    assert (done.state, done.error and done.error["code"]) == ("cancelled", "cancelled")
    assert contents(ready)[0] == 0
    assert ready.objects.list("data") == []


def test_a_job_that_takes_too_long_fails_however_many_attempts_it_had(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1), epochs=1000, patience=1000)
    began = time.process_time()
    done = run(ready, job, job_seconds=1.0)
    assert (done.state, done.error and done.error["code"]) == ("failed", "job_timeout")
    assert time.process_time() - began < 8
    job = submit(ready, "low", (0, 1), max_seconds=0.5)
    ready.jobs.start_attempt(job.id)
    time.sleep(0.6)
    done = run(ready, job)
    assert (done.state, done.error and done.error["code"]) == ("failed", "job_timeout")
    assert done.error is not None
    assert "0.5 seconds" in done.error["detail"]


def test_a_job_that_takes_too_much_memory_fails_and_the_next_one_is_done(ready: Vault) -> None:
    done = run(ready, submit(ready, "low", (0, 1), **SLOW), worker_memory_bytes=2**20)
    assert (done.state, done.error and done.error["code"]) == ("failed", "job_out_of_memory")
    assert run(ready, submit(ready, "low", (0, 1))).state == "succeeded"


def test_memory_that_is_refused_ends_the_job(ready: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*_: Any, **__: Any) -> None:
        bytearray(2**62)

    monkeypatch.setattr(Memory, "learn", learn)
    done = run(ready, submit(ready, "low", (0, 1)))
    assert (done.state, done.error and done.error["code"]) == ("failed", "job_out_of_memory")


def test_what_pytorch_says_when_there_is_no_memory_left() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert resources.is_out_of_memory(caught.value)
    assert not resources.is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert resources.resident() > 2**20


def test_the_end_of_a_job_is_declared_where_the_work_cannot_ask() -> None:
    begun, declared = time.monotonic(), threading.Event()
    end = EndReason("cancelled", "The job was cancelled.", cancelled=True)
    interruption = Interruption(lambda: False, lambda: end if time.monotonic() - begun > 0.2 else None, 0.1)
    with Watchdog(interruption, lambda _: declared.set()):
        assert declared.wait(120)
    assert interruption.end == end


def test_nothing_is_declared_of_work_that_has_settled() -> None:
    declared: list[EndReason] = []
    settled = threading.Event()
    end = EndReason("cancelled", "", cancelled=True)
    interruption = Interruption(lambda: False, lambda: end if settled.is_set() else None, 0.1)
    with Watchdog(interruption, declared.append) as watchdog:
        watchdog.settle()
        settled.set()
        time.sleep(1.5)
    assert declared == []


_ALLOCATE = """
import torch
from worker import resources
from worker.settings import WorkerSettings
torch.ones(8) @ torch.ones(8)
resources.limit_memory(WorkerSettings(worker_memory_bytes=resources.resident() + 200 * 2**20))
torch.zeros(100 * 2**20, dtype=torch.uint8)
try:
    torch.zeros(600 * 2**20, dtype=torch.uint8)
except RuntimeError as error:
    assert resources.is_out_of_memory(error), error
else:
    raise SystemExit("it got more memory than it may take")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound private memory")
def test_the_system_refuses_a_worker_more_memory_than_it_may_take() -> None:
    subprocess.run([sys.executable, "-c", _ALLOCATE], check=True, timeout=280)
