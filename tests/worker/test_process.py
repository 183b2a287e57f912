"""Tests of worker processes: started, stopped, killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.jobs.wakeup import WakeupSender
from testing.data.models import MODEL, create, submit
from testing.processes.forked import fork
from testing.servers.service import wait_until
from vault.settings import VaultSettings
from vault.vault import Vault


class Worker:
    """`python -m worker`, until it is ended."""

    def __init__(self, settings: VaultSettings, log: Path) -> None:
        environment = {
            **os.environ,
            "ENGRAM_STORE_URL": settings.store_url,
            "ENGRAM_REDIS_URL": settings.redis_url,
            "ENGRAM_LEASE_SECONDS": "10",  # a worker that the machine keeps waiting for seconds shall not lose it
            "ENGRAM_RECONCILE_SECONDS": "0.3",
            "OMP_NUM_THREADS": "1",
        }
        self._log = log
        with log.open("ab") as file:
            self.process = fork("worker", [], environment, stderr=file.fileno())

    def end(self, number: signal.Signals) -> int:
        """Send the signal; the process's exit status."""
        self.process.send_signal(number)
        return self.process.wait(120)

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def start(ready: Vault, tmp_path: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(ready.settings, tmp_path / "worker.log"))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def wait_for(vault: Vault, job: str, state: str) -> None:
    wait_until(lambda: vault.jobs.get(job).state == state, 200)


@pytest.mark.timeout(900)
def test_a_stopped_and_a_killed_worker_lose_no_job(ready: Vault, start: Callable[[], Worker]) -> None:
    """One story, since a worker takes seconds to start: stopped, killed, resumed, and jobs without any message."""
    job = submit(ready, "a", (0, 1), epochs=300, patience=300)
    first, second = start(), start()
    wait_for(ready, job.id, "running")
    holder = ready.leases.holder(MODEL)
    assert holder is not None
    at_work, idle = (first, second) if f":{first.process.pid}" in holder.owner else (second, first)
    assert at_work.end(signal.SIGTERM) == 0
    wait_for(ready, job.id, "running")
    attempts = ready.jobs.attempts(job.id)
    assert [attempt.released for attempt in attempts] == [True, False]
    idle.end(signal.SIGKILL)
    third = start()
    wait_for(ready, job.id, "succeeded")
    assert ready.jobs.get(job.id).attempts == 3
    # The result is written first, and what only an open job needs is removed after it.
    wait_until(lambda: ready.objects.list("data") == [], 60)

    create(ready, "other")
    wakeups = WakeupSender(ready.settings.redis_url)
    by_message = submit(ready, "b", (2, 3), "other")
    wakeups.wake("other")
    wait_for(ready, by_message.id, "succeeded")
    wakeups.close()
    ready.redis.flushall()
    unannounced = submit(ready, "c", (4, 5), "other")
    wait_for(ready, unannounced.id, "succeeded")
    assert third.end(signal.SIGINT) == 0
    assert "Traceback" not in third.log
