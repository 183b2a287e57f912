"""Tests of the sweep in the background of one worker."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from testing.data.models import MODEL, learn
from testing.processes.races import race
from testing.servers.service import wait_until
from vault.vault import Vault
from worker.background import Sweeper


def test_of_many_workers_one_sweeps(ready: Vault) -> None:
    swept = race(6, lambda _: Sweeper(ready, 3600).sweep_if_due())
    assert sum(one is not None for one in swept) == 1
    assert Sweeper(ready, 3600).sweep_if_due() is None
    time.sleep(0.02)
    assert Sweeper(ready, 0.01).sweep_if_due() is not None


def test_while_another_sweeps_nobody_does(ready: Vault) -> None:
    lease = ready.leases.acquire("sweep:all", "another")
    assert lease is not None
    assert Sweeper(ready, 3600).sweep_if_due() is None
    lease.release()
    assert Sweeper(ready, 3600).sweep_if_due() is not None


def test_tasks_are_learned_beside_sweeps(ready: Vault, tmp_path: Path) -> None:
    sweeper = Sweeper(ready, 0.01)
    sweeper.start()
    try:
        versions = [(learn(ready, task, digits).result or {})["version"] for task, digits in TASKS.items()]
    finally:
        wait_until(lambda: ready.objects.exists("sweeps/last.json"), 60)
        sweeper.stop()
        # It is not waited for by a worker that ends, but the vault is closed here.
        for thread in threading.enumerate():
            if thread.name == "sweeper":
                thread.join(60)
    assert versions == [1, 2]
    for commit in ready.log.list(MODEL):
        for sha in filter(None, (*commit.engrams, *commit.kept, commit.recogniser, commit.report, commit.certificate)):
            ready.objects.get_blob(sha)


TASKS = {"a": (0, 1), "b": (2, 3)}
