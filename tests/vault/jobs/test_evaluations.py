"""Tests of jobs that evaluate: beside those that learn, and under releases that do not know them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from service.cli.validator import LearnerValidator
from testing.data.models import create
from vault.errors import JobExists, UnsupportedRecord
from vault.jobs import backlog
from vault.jobs.ids import new_job_id
from vault.jobs.job import Job
from vault.maintenance.check import check
from vault.maintenance.sweep import SweepAges
from vault.settings import VaultSettings
from vault.storage import documents
from vault.vault import Vault

DATA = "s3://bucket/data.zip"


def submit(vault: Vault, model: str = "lines", data: str = DATA, job_id: str | None = None) -> Job:
    return vault.jobs.submit(model, "", data, {"versions": [1]}, job_id=job_id, kind="evaluate")


def test_an_evaluation_is_told_from_a_task(vault: Vault) -> None:
    task = vault.jobs.submit("lines", "screws", DATA, {})
    job = submit(vault)
    assert [one.id for one in vault.jobs.open_jobs("lines")] == [task.id, job.id]
    assert [one.id for one in vault.jobs.open_jobs("lines", "learn")] == [task.id]
    assert [one.id for one in vault.jobs.open_jobs(None, "evaluate")] == [job.id]
    assert (vault.jobs.get(job.id).kind, vault.jobs.get(task.id).kind) == ("evaluate", "learn")
    assert "kind" not in vault.objects.get_json(f"jobs/{task.id}/request.json")
    done = vault.jobs.finish(job.id, "succeeded", result={"evaluation": {}})
    assert (done.kind, done.state) == ("evaluate", "succeeded")
    assert vault.jobs.open_jobs(None, "evaluate") == []
    assert [one.id for one in vault.jobs.list("lines")] == [job.id, task.id]


def test_it_is_worked_on_under_a_lease_of_its_own(vault: Vault) -> None:
    first, second = submit(vault), submit(vault)
    assert vault.jobs.waiting_models() == ["lines"]
    model = vault.leases.acquire("lines", "learner")
    lease = vault.leases.acquire(first.lease, "worker", first.id)
    assert model is not None
    assert lease is not None
    assert [vault.jobs.get(job.id).state for job in (first, second)] == ["running", "queued"]
    waiting = backlog.read(vault.objects, vault.leases)
    assert (waiting.queued, waiting.running) == (1, 1)
    assert waiting.oldest_seconds > 0
    assert vault.jobs.waiting_models() == ["lines"]
    other = vault.leases.acquire(second.lease, "another", second.id)
    assert other is not None
    assert vault.jobs.waiting_models() == []
    for one in (model, lease, other):
        one.release()


def test_the_same_id_is_the_same_request(vault: Vault) -> None:
    job_id = new_job_id()
    assert submit(vault, job_id=job_id).id == submit(vault, job_id=job_id).id == job_id
    with pytest.raises(JobExists):
        vault.jobs.submit("lines", "", DATA, {"versions": [1]}, job_id=job_id)
    assert [job.kind for job in vault.jobs.open_jobs()] == ["evaluate"]
    assert vault.objects.list("open") == [f"open/lines/evaluations/{job_id}"]


def test_one_that_waits_is_cancelled_at_once_and_goes_with_its_model(vault: Vault) -> None:
    create(vault, "lines")
    assert vault.jobs.request_cancel(submit(vault).id).state == "cancelled"
    job = submit(vault)
    vault.delete_model("lines")
    assert vault.jobs.get(job.id).state == "cancelled"


def test_sweeps_and_checks_know_it(vault: Vault, tmp_path: Path) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(b"images")
    job = submit(vault, data=vault.objects.put_file(file))
    now = SweepAges.all(timedelta(0))
    vault.sweep(now)
    assert check(vault.objects, LearnerValidator(vault.objects)).problems == []
    vault.jobs.finish(job.id, "succeeded", result={"evaluation": {}})
    assert check(vault.objects, LearnerValidator(vault.objects)).problems == []
    assert vault.objects.list("data") == []
    assert vault.sweep(now).jobs == [job.id]
    assert [vault.objects.list(folder) for folder in ("jobs", "open", "recent")] == [[], [], []]


def test_an_earlier_release_refuses_it(
    vault: Vault, vault_settings: VaultSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists two names below `open/`, and reads records up to format 3."""
    job, task = submit(vault), vault.jobs.submit("lines", "screws", DATA, {})
    names = [path.split("/")[1:] for path in vault.objects.list("open")]
    assert [parts for parts in names if len(parts) == 2] == [["lines", task.id]]
    monkeypatch.setattr(documents, "FORMAT", 3)
    with Vault.connect(vault_settings) as earlier:
        with pytest.raises(UnsupportedRecord):
            earlier.jobs.get(job.id)
        assert [one.id for one in earlier.jobs.list()] == [task.id]
        assert earlier.jobs.get(task.id).kind == "learn"
