"""What is looked at may be in use meanwhile, and nothing is wrong with it for that."""

from __future__ import annotations

from typing import Any

import pytest

from service.examiner import LearnersExaminer
from tests.learned import MODEL, create
from vault.check import check
from vault.decisions import Decision
from vault.jobs_check import Pending, check_jobs
from vault.log import Commit, CommitLog
from vault.vault import Vault


@pytest.mark.parametrize("after", ["published", "deleted", "made anew"])
def test_a_job_that_succeeds_meanwhile(vault: Vault, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    create(vault)
    job = vault.jobs.submit(MODEL, "low", "s3://bucket/data.zip", {}, lineage=vault.models.get(MODEL).lineage)
    head = vault.log.head(MODEL)
    assert head is not None

    def late(*arguments: Any) -> Pending:
        vault.log.append(MODEL, head.following("learn", job=job.id))
        vault.jobs.finish(job.id, "succeeded", result={"version": 1})
        if after != "published":
            vault.models.delete(MODEL)
        if after == "made anew":
            create(vault)
        return check_jobs(*arguments)

    monkeypatch.setattr("vault.check.check_jobs", late)
    found = check(vault.objects, LearnersExaminer(vault.objects))
    assert (found.jobs, found.problems) == (1, [])


def test_a_version_that_never_came_is_missing(vault: Vault) -> None:
    create(vault)
    job = vault.jobs.submit(MODEL, "low", "s3://bucket/data.zip", {}, lineage=vault.models.get(MODEL).lineage)
    vault.jobs.finish(job.id, "succeeded", result={"version": 1})
    found = check(vault.objects, LearnersExaminer(vault.objects))
    assert [problem.code for problem in found.problems] == ["version_missing"]


def decided(vault: Vault) -> tuple[str, str]:
    """An open job whose version is decided on and not in the log yet, and a blob that only this names."""
    create(vault)
    job = vault.jobs.submit(MODEL, "low", "s3://bucket/data.zip", {}, lineage=vault.models.get(MODEL).lineage)
    head = vault.log.head(MODEL)
    assert head is not None
    report = vault.objects.put_blob(b"{}")
    vault.jobs.decisions.create(job.id, Decision.after(None, head.following("learn", job=job.id, report=report)))
    return job.id, report


@pytest.mark.parametrize("over", [False, True])
def test_what_is_decided_on_and_not_published_yet_is_named(vault: Vault, over: bool) -> None:
    job, _ = decided(vault)
    if over:
        vault.jobs.finish(job, "failed", error={"code": "learning_failed", "detail": "It was."})
    found = check(vault.objects, LearnersExaminer(vault.objects))
    assert (found.orphans, found.problems) == (int(over), [])


def test_a_damaged_blob_of_what_is_to_be_published_is_noticed(vault: Vault) -> None:
    _, report = decided(vault)
    vault.objects.put(f"blobs/{report}", b"{]")
    found = check(vault.objects, LearnersExaminer(vault.objects))
    assert [(problem.object, problem.code) for problem in found.problems] == [(f"blobs/{report}", "damaged")]


@pytest.mark.parametrize("after", ["deleted", "made anew"])
def test_a_model_that_is_deleted_meanwhile(vault: Vault, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    create(vault)
    head = vault.log.head(MODEL)
    assert head is not None
    vault.log.append(MODEL, head.following("budget"))
    create(vault, "other")
    read = CommitLog.read

    def late(log: CommitLog, model: str, version: int) -> Commit:
        if model == MODEL:
            monkeypatch.undo()
            vault.models.delete(MODEL)
            if after == "made anew":
                create(vault)
        return read(log, model, version)

    monkeypatch.setattr(CommitLog, "read", late)
    found = check(vault.objects, LearnersExaminer(vault.objects))
    assert (found.models, found.problems) == (1, [])
