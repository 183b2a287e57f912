"""Tests of the backlog."""

from __future__ import annotations

import time

from testing.data.models import create
from vault.jobs import backlog
from vault.jobs.ids import issued_at, new_job_id
from vault.vault import Vault


def test_an_id_tells_when_it_was_given() -> None:
    before = time.time()
    assert before - 0.01 <= issued_at(new_job_id()) <= time.time() + 0.01


def test_what_waits_is_told_from_what_is_worked_on(vault: Vault) -> None:
    assert backlog.read(vault.objects, vault.leases) == backlog.Backlog(0, 0, 0.0)
    for model in ("one", "other"):
        create(vault, model)
    first, _, third = (vault.jobs.submit(model, "a", "s3://b/k", {}).id for model in ("one", "one", "other"))
    time.sleep(0.05)
    waiting = backlog.read(vault.objects, vault.leases)
    assert (waiting.queued, waiting.running) == (3, 0)
    assert 0.05 <= waiting.oldest_seconds < 60
    lease = vault.leases.acquire("one", "a worker", first)
    assert lease is not None
    before = time.time()
    half = backlog.read(vault.objects, vault.leases)
    after = time.time()
    # The second job of a model that a worker holds waits for its turn, not for a worker.
    assert (half.queued, half.running) == (2, 1)
    assert before - issued_at(third) <= half.oldest_seconds <= after - issued_at(third)
    vault.jobs.finish(third, "cancelled")
    assert backlog.read(vault.objects, vault.leases) == backlog.Backlog(1, 1, 0.0)
    lease.release()
