"""Tests of jobs from submission to result, including lost and damaged records."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from testing.processes.races import race
from testing.servers.redis import RedisServer
from vault.errors import Damaged, JobExists, JobOver, LeaseLost, UnknownJob
from vault.jobs.attempts import Attempts
from vault.jobs.ids import inverted, new_job_id
from vault.jobs.job import Job, Outcome
from vault.settings import VaultSettings
from vault.vault import Vault

DATA = "s3://bucket/data.zip"


def submit(vault: Vault, model: str = "lines", task: str = "screws") -> Job:
    return vault.jobs.submit(model, task, DATA, {"epochs": 3})


class JobsContract:
    """Contract tests; a subclass provides the settings of the storage."""

    @pytest.fixture
    def settings(self) -> VaultSettings:
        raise NotImplementedError

    @pytest.fixture
    def vault(self, settings: VaultSettings) -> Iterator[Vault]:
        with Vault.connect(settings) as vault:
            vault.redis.flushall()
            yield vault

    def test_a_life(self, vault: Vault) -> None:
        job = vault.jobs.submit("lines", "screws", DATA, {"epochs": 3}, lineage="l", extra={"by": "me"})
        assert (job.state, job.attempts, job.lineage, job.extra) == ("queued", 0, "l", {"by": "me"})
        lease = vault.leases.acquire("lines", "worker")
        assert lease is not None
        lease.assign(job.id)
        token = vault.jobs.start_attempt(job.id, "worker")
        vault.jobs.report(job.id, {"phase": "training", "fraction": 0.25, "loss": 1.5})
        running = vault.jobs.get(job.id)
        assert (running.state, running.attempts, running.phase) == ("running", 1, "training")
        assert running.progress == {"fraction": 0.25, "loss": 1.5}
        ended = vault.jobs.finish(job.id, "succeeded", result={"version": 1}, token=token)
        lease.release()
        assert (ended.state, ended.result, ended.error, ended.attempts) == ("succeeded", {"version": 1}, None, 1)
        assert ended.over
        assert ended.finished_at is not None
        assert ended.finished_at > ended.created_at
        assert (ended.phase, ended.progress) == (None, {"fraction": 1.0})
        assert vault.jobs.get(job.id) == ended
        assert vault.jobs.open_jobs() == []
        assert vault.jobs.last_event(job.id) == {"state": "succeeded", "error": None, "result": {"version": 1}}

    @pytest.mark.parametrize("state", ["failed", "cancelled"])
    def test_how_far_an_ended_job_got_is_told_while_redis_knows(
        self, vault: Vault, settings: VaultSettings, state: Outcome
    ) -> None:
        job = submit(vault)
        token = vault.jobs.start_attempt(job.id)
        vault.jobs.report(job.id, {"phase": "training", "fraction": 0.25})
        ended = vault.jobs.finish(job.id, state, token=token)
        assert (ended.phase, ended.progress) == ("training", {"fraction": 0.25})
        with Vault.connect(settings) as other:
            assert other.jobs.get(job.id) == ended
        vault.redis.flushall()
        with Vault.connect(settings) as other:
            found = other.jobs.get(job.id)
            assert (found.state, found.phase, found.progress) == (state, None, {})

    def test_losing_all_of_redis_loses_no_job(self, vault: Vault, settings: VaultSettings) -> None:
        running, waiting, ended = (submit(vault, task=task) for task in "abc")
        lease = vault.leases.acquire("lines", "worker", running.id)
        assert lease is not None
        token = vault.jobs.start_attempt(running.id)
        vault.jobs.report(running.id, {"phase": "training"})
        vault.jobs.finish(ended.id, "failed", error={"code": "no", "detail": "No."})
        vault.redis.flushall()

        with Vault.connect(settings) as other:
            assert [job.id for job in other.jobs.open_jobs("lines")] == [running.id, waiting.id]
            assert other.jobs.open_models() == ["lines"]
            assert [job.state for job in other.jobs.list()] == ["failed", "queued", "queued"]
            assert other.jobs.get(running.id).attempts == token
            lease.renew()
            assert other.jobs.get(running.id).state == "running"
            assert other.jobs.get(running.id).progress == {}
            vault.jobs.finish(running.id, "succeeded", token=token)
            assert other.jobs.get(running.id).state == "succeeded"

    def test_the_first_result_stands(self, vault: Vault) -> None:
        job = submit(vault)
        ends = race(8, lambda number: vault.jobs.finish(job.id, "succeeded", result={"by": number}))
        assert len({str(end.result) for end in ends}) == 1
        assert vault.jobs.finish(job.id, "failed", error={"code": "late"}) == ends[0]

    def test_attempts_count_up_and_fence_off(self, vault: Vault) -> None:
        job = submit(vault)
        assert sorted(race(5, lambda number: vault.jobs.start_attempt(job.id, f"w{number}"))) == [1, 2, 3, 4, 5]
        vault.jobs.check_token(job.id, 5)
        with pytest.raises(LeaseLost):
            vault.jobs.check_token(job.id, 4)
        with pytest.raises(LeaseLost):
            vault.jobs.finish(job.id, "succeeded", token=4)
        vault.jobs.release_attempt(job.id, 2)
        vault.jobs.release_attempt(job.id, 2)
        attempts = vault.jobs.attempts(job.id)
        assert [(one.number, one.released) for one in attempts] == [(n, n == 2) for n in range(1, 6)]
        assert {one.owner for one in attempts} == {f"w{number}" for number in range(5)}
        assert vault.jobs.start_attempt(job.id) == 6
        vault.jobs.finish(job.id, "succeeded", token=6)
        with pytest.raises(JobOver):
            vault.jobs.check_token(job.id, 6)
        with pytest.raises(JobOver):
            vault.jobs.start_attempt(job.id)

    def test_open_jobs_are_oldest_first(self, vault: Vault) -> None:
        jobs = [submit(vault, model, f"t{number}") for number in range(4) for model in ("b", "a")]
        assert [job.id for job in vault.jobs.open_jobs()] == [job.id for job in jobs]
        assert [job.id for job in vault.jobs.open_jobs("a")] == [job.id for job in jobs if job.model == "a"]
        assert vault.jobs.open_models() == ["a", "b"]
        vault.jobs.finish(jobs[1].id, "succeeded")
        assert [job.task for job in vault.jobs.open_jobs("a")] == ["t1", "t2", "t3"]
        assert vault.jobs.open_jobs("nobody") == []

    def test_listed_newest_first_and_paged(self, vault: Vault) -> None:
        jobs = [submit(vault, model, f"t{number}") for number in range(3) for model in ("b", "a")]
        vault.jobs.finish(jobs[0].id, "succeeded")
        newest = [job.id for job in reversed(jobs)]
        assert [job.id for job in vault.jobs.list()] == newest
        pages, before = [], None
        while page := vault.jobs.list(before=before, limit=4):
            pages.append([job.id for job in page])
            before = page[-1].id
        assert pages == [newest[:4], newest[4:]]
        assert [job.task for job in vault.jobs.list("a", limit=2)] == ["t2", "t1"]
        assert [job.task for job in vault.jobs.list("a", before=jobs[3].id)] == ["t0"]

    def test_cancelled_before_anyone_began(self, vault: Vault, tmp_path: Path) -> None:
        (tmp_path / "zip").write_bytes(b"zip")
        job = vault.jobs.submit("lines", "screws", vault.objects.put_file(tmp_path / "zip"), {})
        assert not vault.jobs.cancel_requested(job.id)
        ended = vault.jobs.request_cancel(job.id)
        assert (ended.state, ended.error and ended.error["code"]) == ("cancelled", "cancelled")
        assert vault.jobs.request_cancel(job.id) == ended
        assert vault.objects.list("data") == []
        with pytest.raises(JobOver):
            vault.jobs.start_attempt(job.id)

    def test_cancelled_while_it_runs(self, vault: Vault) -> None:
        job = submit(vault)
        token = vault.jobs.start_attempt(job.id)
        asked = vault.jobs.request_cancel(job.id)
        assert (asked.state, asked.cancel_requested) == ("queued", True)
        vault.jobs.request_cancel(job.id)
        vault.redis.flushall()
        assert vault.jobs.cancel_requested(job.id)
        vault.jobs.finish(job.id, "cancelled", token=token)
        assert vault.jobs.get(job.id).cancel_requested

    def test_a_cancel_and_a_beginning_see_each_other(self, vault: Vault) -> None:
        for _ in range(10):
            job = submit(vault)

            def act(thread: int, job: Job = job) -> str:
                if thread == 0:
                    return vault.jobs.request_cancel(job.id).state
                try:
                    vault.jobs.start_attempt(job.id)
                except JobOver:
                    return "refused"
                return "cancelled" if vault.jobs.cancel_requested(job.id) else "works on"

            asked, worker = race(2, act)
            ended = vault.jobs.get(job.id).over
            # A worker never goes on with a cancelled job without seeing the cancellation.
            assert worker != "works on" or not ended
            if worker == "works on":
                assert vault.jobs.cancel_requested(job.id)
            assert asked in ("cancelled", "queued")


class TestFolder(JobsContract):
    @pytest.fixture
    def settings(self, vault_settings: VaultSettings) -> VaultSettings:
        return vault_settings


class TestS3(JobsContract):
    @pytest.fixture
    def settings(self, s3_settings: VaultSettings) -> VaultSettings:
        return s3_settings


def test_submitting_again_under_an_id_changes_nothing(vault: Vault) -> None:
    job_id = new_job_id()
    first = vault.jobs.submit("lines", "screws", DATA, {}, job_id=job_id)
    assert vault.jobs.submit("lines", "screws", DATA, {}, job_id=job_id) == first
    for model, task in (("lines", "nails"), ("other", "screws")):
        with pytest.raises(JobExists):
            vault.jobs.submit(model, task, DATA, {}, job_id=job_id)
    assert [job.id for job in vault.jobs.open_jobs()] == [job_id]
    assert vault.jobs.open_models() == ["lines"]


@pytest.mark.parametrize("job_id", ["", "0" * 32, "../" * 10, "0" * 31 + "/", "A" * 32, "0" * 33])
def test_unknown_jobs(vault: Vault, job_id: str) -> None:
    jobs = vault.jobs
    for call in (jobs.get, jobs.request_cancel, jobs.start_attempt, jobs.attempts, jobs.last_event):
        with pytest.raises(UnknownJob):
            call(job_id)
    with pytest.raises(UnknownJob):
        jobs.finish(job_id, "succeeded")


def test_a_job_that_ends_while_an_attempt_begins_is_refused(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(vault)
    start = Attempts.start

    def start_late(attempts: Attempts, job_id: str, owner: str) -> int:
        vault.jobs.request_cancel(job_id)
        return start(attempts, job_id, owner)

    monkeypatch.setattr(Attempts, "start", start_late)
    with pytest.raises(JobOver):
        vault.jobs.start_attempt(job.id)


def test_a_damaged_job_is_named_and_the_others_go_on(vault: Vault) -> None:
    jobs = [submit(vault, task=task) for task in "abc"]
    vault.objects.put(f"jobs/{jobs[1].id}/request.json", b"{}")
    with pytest.raises(Damaged, match=jobs[1].id):
        vault.jobs.get(jobs[1].id)
    assert [job.task for job in vault.jobs.open_jobs()] == ["a", "c"]
    assert [job.task for job in vault.jobs.list()] == ["c", "a"]
    assert len(vault.objects.list("open")) == 3


def test_a_damaged_attempt_counts_all_the_same(vault: Vault) -> None:
    job = submit(vault)
    for _ in range(2):
        vault.jobs.start_attempt(job.id, "somebody")
    vault.jobs.release_attempt(job.id, 2)
    vault.objects.put(f"jobs/{job.id}/attempts/0001.json", b"damaged")
    assert [(one.number, one.owner, one.released) for one in vault.jobs.attempts(job.id)] == [
        (1, "", False),
        (2, "somebody", True),
    ]


def test_a_submission_broken_off_is_no_job(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = submit(vault)
    with monkeypatch.context() as patch:
        patch.setattr(vault.objects, "create_json", None)
        with pytest.raises(TypeError):
            submit(vault)
    newest = submit(vault)
    assert [job.id for job in vault.jobs.open_jobs()] == [kept.id, newest.id]
    assert [job.id for job in vault.jobs.list(limit=2)] == [newest.id, kept.id]
    assert len(vault.objects.list("open")) == 3
    root = vault.settings.store_folder
    assert root is not None
    for path in vault.objects.list("open"):
        os.utime(root / path, (0, 0))
    vault.jobs.open_jobs()
    assert [path.rsplit("/", 1)[1] for path in vault.objects.list("open")] == [kept.id, newest.id]


def test_a_finishing_broken_off_is_finished_by_the_next_look(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    job = submit(vault)
    with monkeypatch.context() as patch:
        patch.setattr(vault.objects, "delete", None)
        with pytest.raises(TypeError):
            vault.jobs.finish(job.id, "succeeded")
    assert vault.jobs.get(job.id).state == "succeeded"
    assert vault.jobs.open_models() == ["lines"]
    assert vault.jobs.open_jobs() == []
    assert vault.jobs.open_models() == []


def test_jobs_go_on_without_redis(own_redis: RedisServer, vault_settings: VaultSettings) -> None:
    with Vault.connect(vault_settings.model_copy(update={"redis_url": own_redis.url})) as vault:
        own_redis.stop()
        job = submit(vault)
        token = vault.jobs.start_attempt(job.id)
        vault.jobs.report(job.id, {"phase": "training"})
        assert vault.jobs.get(job.id).state == "queued"
        assert not vault.jobs.cancel_requested(job.id)
        assert vault.jobs.finish(job.id, "succeeded", token=token).state == "succeeded"


def test_ids_sort_by_time_and_backwards_when_inverted() -> None:
    ids = [job_id for batch in race(4, lambda _: [new_job_id() for _ in range(500)]) for job_id in batch]
    assert len(set(ids)) == 2000
    assert all(re.fullmatch("[0-9a-f]{32}", job_id) for job_id in ids)
    one_thread = [new_job_id() for _ in range(1000)]
    assert one_thread == sorted(one_thread)
    assert sorted(one_thread, key=inverted) == one_thread[::-1]
    assert [inverted(inverted(job_id)) for job_id in one_thread] == one_thread


def test_an_upload_goes_with_its_job(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "zip").write_bytes(b"zip")
    jobs = [vault.jobs.submit("lines", task, vault.objects.put_file(tmp_path / "zip"), {}) for task in "ab"]
    vault.jobs.finish(jobs[1].id, "succeeded")
    assert vault.objects.list("data") == [f"data/{jobs[0].data}"]


def test_an_upload_whose_job_ended_in_a_crash_goes_too(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "zip").write_bytes(b"zip")
    job = vault.jobs.submit("lines", "a", data := vault.objects.put_file(tmp_path / "zip"), {})
    vault.jobs.finish(job.id, "failed")
    # What a crash right after the result was written leaves behind.
    vault.objects.put(f"data/{data}", b"zip")
    vault.objects.put(f"open/lines/{job.id}", b"")
    assert vault.jobs.open_models() == ["lines"]
    assert vault.jobs.open_jobs() == []
    assert [*vault.objects.list("data"), *vault.objects.list("open")] == []
