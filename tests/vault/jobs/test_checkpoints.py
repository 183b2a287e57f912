"""Tests of job checkpoints."""

from __future__ import annotations

import pytest

from vault.errors import JobOver, LeaseLost
from vault.jobs.checkpoints import JobCheckpoints, last_checkpointed_attempt
from vault.jobs.job import Job
from vault.vault import Vault


@pytest.fixture
def job(vault: Vault) -> Job:
    return vault.jobs.submit("lines", "task", "s3://bucket/data.zip", {})


def begun(vault: Vault, job: Job) -> JobCheckpoints:
    """The checkpoints of a new attempt."""
    return JobCheckpoints(vault.objects, vault.jobs, job.id, vault.jobs.start_attempt(job.id))


def folder(job: Job) -> str:
    return f"jobs/{job.id}/checkpoint"


def test_only_the_newest_is_kept(vault: Vault, job: Job) -> None:
    first = begun(vault, job)
    assert first.load() is None
    assert last_checkpointed_attempt(vault.objects, job.id) == 0
    first.save({"step": 1}, {"done": b"one", "standing": b"here"}, [])
    first.save({"step": 2}, {"standing": b"there"}, ["done"])
    assert len(vault.objects.list(folder(job))) == 3
    left = begun(vault, job).load()
    assert left is not None
    assert (left.attempt, left.about["step"]) == (1, 2)
    assert left.pieces == {"done": b"one", "standing": b"there"}
    assert last_checkpointed_attempt(vault.objects, job.id) == 1


def test_a_later_attempt_keeps_its_own_and_removes_the_earlier(vault: Vault, job: Job) -> None:
    first = begun(vault, job)
    first.save({}, {"done": b"one"}, [])
    second = begun(vault, job)
    assert second.load() is not None
    second.save({}, {"done": b"two"}, [])
    assert {path.split("/")[3] for path in vault.objects.list(folder(job))} == {"0002"}
    with pytest.raises(LeaseLost):
        first.save({}, {"done": b"late"}, [])
    left = begun(vault, job).load()
    assert left is not None
    assert left.pieces == {"done": b"two"}


def test_a_damaged_one_is_passed_over(vault: Vault, job: Job, caplog: pytest.LogCaptureFixture) -> None:
    first = begun(vault, job)
    first.save({}, {"done": b"one"}, [])
    (piece,) = [path for path in vault.objects.list(folder(job)) if not path.endswith(".json")]
    vault.objects.put(piece, b"other")
    assert begun(vault, job).load() is None
    assert "is passed over" in caplog.text
    vault.objects.delete(piece)
    assert begun(vault, job).load() is None


def test_none_is_left_of_a_job_that_is_over(vault: Vault, job: Job) -> None:
    first = begun(vault, job)
    first.save({}, {"done": b"one"}, [])
    vault.jobs.finish(job.id, "failed", error={"code": "failed", "detail": ""})
    assert vault.objects.list(folder(job)) == []
    with pytest.raises(JobOver):
        first.save({}, {"done": b"late"}, [])
    assert vault.objects.list(folder(job)) == []
