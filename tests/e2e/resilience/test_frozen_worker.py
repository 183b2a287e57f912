"""Test of a worker that is suspended past its lease while another finishes its job."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from testing.data.digits import QUICK, SMALL_MODEL, archive
from testing.processes.processes import eventually
from testing.processes.supervised import Supervised, frozen, supervised
from vault.vault import Vault

MODEL = "digits"
LONG = QUICK | {"epochs": 120, "patience": 120}
"""Options of a task that takes seconds, so that it is still running when the worker is suspended."""


def submit(parts: Supervised, task: str, digits: tuple[int, ...], **options: int) -> str:
    form = {"name": task, "options": json.dumps(LONG | options)}
    url = f"{parts.url}/v1/models/{MODEL}/tasks"
    response = httpx.post(url, data=form, files={"data": ("data.zip", archive(digits))}, timeout=60)
    job: str = response.raise_for_status().json()["job"]["id"]
    return job


def at_work(vault: Vault) -> int | None:
    """The process id of the worker that has the model's lease."""
    holder = vault.leases.holder(MODEL)
    return int(holder.owner.rpartition(":")[2]) if holder and holder.job else None


def stored(vault: Vault) -> dict[str, bytes]:
    """All objects except blobs, which count only if a commit names them."""
    folders = ("models", "jobs", "data", "open", "recent")
    return {path: vault.objects.get(path) for folder in folders for path in vault.objects.list(folder)}


def succeeded(vault: Vault, job: str) -> bool:
    found = vault.jobs.get(job)
    assert found.state in ("queued", "running", "succeeded"), found
    return found.state == "succeeded"


@pytest.mark.timeout(900)
def test_a_worker_that_stood_still_changes_nothing(tmp_path: Path) -> None:
    with supervised(tmp_path, workers=2, ENGRAM_LEASE_SECONDS="6") as (parts, vault):
        httpx.post(f"{parts.url}/v1/models", json={"name": MODEL, **SMALL_MODEL}, timeout=60).raise_for_status()
        job = submit(parts, "first", (0, 1))
        assert eventually(lambda: vault.jobs.get(job).phase == "training", 180), parts.log
        pid = at_work(vault)
        late = next(worker for worker in parts.workers if worker.pid == pid)
        with frozen(late):
            assert eventually(lambda: at_work(vault) not in (None, pid), 180), parts.log
            assert eventually(lambda: succeeded(vault, job), 180), parts.log
            assert [attempt.number for attempt in vault.jobs.attempts(job)] == [1, 2]
            # With the lease given back, nothing but its number stands between the late one and the log.
            assert eventually(lambda: vault.leases.holder(MODEL) is None, 60), parts.log
            before = stored(vault)
        refused = f"Attempt 1 at the job {job} was overtaken by attempt 2."
        assert eventually(lambda: refused in parts.log, 180), parts.log
        # Nobody else is left for the next job.
        other = next(worker for worker in parts.workers if worker.pid != pid)
        other.kill()
        other.wait()
        following = submit(parts, "second", (2, 3), epochs=2)
        assert eventually(lambda: succeeded(vault, following), 180), parts.log
        assert [attempt.released for attempt in vault.jobs.attempts(job)] == [False, False]
        after = stored(vault)
        assert {path: after.get(path) for path in before} == before
        assert [commit.job for commit in vault.log.list(MODEL)] == [None, job, following]
        assert [commit.token for commit in vault.log.list(MODEL)] == [None, 2, 1]
