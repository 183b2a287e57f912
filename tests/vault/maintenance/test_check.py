"""Tests of integrity checks of a store in use."""

from __future__ import annotations

from typing import Any

import pytest

from service.cli.validator import LearnerValidator
from testing.data.models import MODEL, create
from vault.commit_log import Commit, CommitLog
from vault.jobs.decisions import Decision, Decisions
from vault.maintenance.check import check
from vault.maintenance.check_jobs import check_jobs
from vault.vault import Vault


@pytest.mark.parametrize("after", ["published", "deleted", "made anew"])
def test_a_job_that_succeeds_meanwhile(vault: Vault, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    create(vault)
    job = vault.jobs.submit(MODEL, "low", "s3://bucket/data.zip", {}, lineage=vault.models.get(MODEL).lineage)
    head = vault.log.head(MODEL)
    assert head is not None

    def late(*arguments: Any) -> set[str]:
        vault.log.append(MODEL, head.following("learn", job=job.id))
        vault.jobs.finish(job.id, "succeeded", result={"version": 1})
        if after != "published":
            vault.models.delete(MODEL)
        if after == "made anew":
            create(vault)
        return check_jobs(*arguments)

    monkeypatch.setattr("vault.maintenance.check.check_jobs", late)
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert (found.jobs, found.problems) == (1, [])


def test_a_version_that_never_came_is_missing(vault: Vault) -> None:
    create(vault)
    job = vault.jobs.submit(MODEL, "low", "s3://bucket/data.zip", {}, lineage=vault.models.get(MODEL).lineage)
    vault.jobs.finish(job.id, "succeeded", result={"version": 1})
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert [problem.code for problem in found.problems] == ["version_missing"]


def decided(vault: Vault) -> Commit:
    """A commit that is decided for an open job and not in the log yet; nothing else names its report."""
    create(vault)
    job = vault.jobs.submit(MODEL, "low", "s3://bucket/data.zip", {}, lineage=vault.models.get(MODEL).lineage)
    head = vault.log.head(MODEL)
    assert head is not None
    commit = head.following("learn", job=job.id, report=vault.objects.put_blob(b"{}"))
    vault.jobs.decisions.create(job.id, Decision.after(None, commit))
    return commit


@pytest.mark.parametrize("over", [False, True])
def test_what_is_decided_on_and_not_published_yet_is_named(vault: Vault, over: bool) -> None:
    commit = decided(vault)
    if over:
        vault.jobs.finish(str(commit.job), "failed", error={"code": "learning_failed", "detail": "It was."})
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert (found.orphans, found.problems) == (int(over), [])


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_published_around_the_look_at_decisions_is_named(
    vault: Vault, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    commit = decided(vault)
    read_pending = Decisions.pending

    def publish() -> None:
        vault.log.append(MODEL, commit)
        vault.jobs.finish(str(commit.job), "succeeded", result={"version": 1})

    def pending(decisions: Decisions) -> list[tuple[str, str]]:
        if when == "before":
            publish()
        found = read_pending(decisions)
        if when == "after":
            publish()
        return found

    monkeypatch.setattr(Decisions, "pending", pending)
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert (found.orphans, found.problems) == (0, [])


@pytest.mark.parametrize("beside", ["0002", "nothing", "request"])
def test_what_is_damaged_beside_it_keeps_it_named(vault: Vault, beside: str) -> None:
    folder = f"jobs/{decided(vault).job}"
    path = {"0002": f"{folder}/decisions/0002.json", "request": f"{folder}/request.json"}.get(beside)
    if path is not None:
        vault.objects.put(path, b"{]")
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert (found.orphans, [problem.object for problem in found.problems]) == (0, [path] if path else [])


@pytest.mark.parametrize("only", [MODEL, "other", None])
def test_a_damaged_blob_of_what_is_to_be_published_is_noticed(vault: Vault, only: str | None) -> None:
    commit = decided(vault)
    create(vault, "other")
    vault.objects.put(f"blobs/{commit.report}", b"{]")
    found = check(vault.objects, LearnerValidator(vault.objects), only)
    assert [problem.object for problem in found.problems] == ([] if only == "other" else [f"blobs/{commit.report}"])


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
    found = check(vault.objects, LearnerValidator(vault.objects))
    assert (found.models, found.problems) == (1, [])
