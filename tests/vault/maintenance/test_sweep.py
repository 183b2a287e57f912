"""Tests of garbage collection, beside concurrent writers and with interrupted sweeps."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from testing.processes.races import race
from testing.servers.service import wait_until
from vault.commit_log import Commit
from vault.errors import UnknownJob
from vault.jobs.decisions import Decision
from vault.jobs.idempotency import IdempotencyRecords, RecordedAnswer
from vault.jobs.job import Job
from vault.maintenance.sweep import Sweep, SweepAges
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.vault import Vault

NONE = SweepAges.all(timedelta(seconds=-1))
"""Ages at which everything is old enough."""


def submit(vault: Vault, folder: Path, task: str = "a") -> Job:
    """A job with an upload."""
    (folder / "zip").write_bytes(task.encode())
    return vault.jobs.submit("lines", task, vault.objects.put_file(folder / "zip"), {})


def over(vault: Vault, folder: Path, task: str = "a") -> Job:
    """A job that has had an attempt and is over."""
    job = submit(vault, folder, task)
    token = vault.jobs.start_attempt(job.id)
    vault.jobs.request_cancel(job.id)
    ended = vault.jobs.finish(job.id, "failed", error={"code": "x", "detail": "y"}, token=token)
    vault.objects.put(f"jobs/{job.id}/checkpoint/0001/000001.json", b"{}")  # of a worker that did not know
    return ended


def make_old(vault: Vault, prefix: str, days: float) -> None:
    """Set back the times of everything below a path by so many days."""
    root = vault.settings.store_folder
    assert root is not None
    then = time.time() - days * 86400
    paths = [root / path for path in vault.objects.list(prefix)] or [root / prefix]
    for path in paths:
        os.utime(path, (then, then))


def everything(objects: ObjectStore) -> list[str]:
    return [path for folder in objects.list_top() for path in objects.list(folder)]


@pytest.mark.parametrize("dry_run", [True, False])
def test_each_kind_goes_at_its_age(vault: Vault, tmp_path: Path, dry_run: bool) -> None:
    old, young, waiting = (over(vault, tmp_path), over(vault, tmp_path, "b"), submit(vault, tmp_path, "c"))
    records = IdempotencyRecords(vault.objects)
    for name in ("f" * 64, "a" * 64):
        records.claim(name, "x")
        records.keep(name, RecordedAnswer("x", 202, {}, ""))
    uploads = [vault.objects.put_file(tmp_path / "zip") for _ in range(2)]
    blobs = [vault.objects.put_blob(data) for data in (b"1", b"2")]
    make_old(vault, f"jobs/{old.id}", 31)
    make_old(vault, f"jobs/{young.id}", 29)
    make_old(vault, f"jobs/{waiting.id}", 99)
    make_old(vault, f"data/{waiting.data}", 99)
    make_old(vault, f"data/{uploads[0]}", 1.1)
    make_old(vault, f"idempotency/{'f' * 64}", 1.1)
    make_old(vault, f"blobs/{blobs[0]}", 1.1)

    before = everything(vault.objects)
    swept = vault.sweep(dry_run=dry_run)
    assert swept.jobs == [old.id]
    assert len(swept.checkpoints) == 2
    assert swept.uploads == [f"data/{uploads[0]}"]
    assert swept.answers == ["f" * 64]
    assert swept.blobs == [f"blobs/{blobs[0]}"]
    after = everything(vault.objects)
    if dry_run:
        assert after == before
        return
    gone = [path for path in before if path not in after]
    assert {path for path in gone if path.startswith("jobs/")} > {f"jobs/{old.id}/request.json"}
    assert not [path for path in after if old.id in path or "f" * 64 in path]
    fresh = Vault.connect(vault.settings)
    assert [job.id for job in fresh.jobs.list()] == [waiting.id, young.id]
    assert [job.id for job in fresh.jobs.list("lines")] == [waiting.id, young.id]
    assert [job.id for job in fresh.jobs.open_jobs()] == [waiting.id]
    assert not (vault.settings.store_folder or tmp_path).joinpath("jobs", old.id).exists()
    fresh.close()


def test_a_sweep_of_a_bucket(s3_settings: VaultSettings, tmp_path: Path) -> None:
    with Vault.connect(s3_settings) as vault:
        job, waiting = over(vault, tmp_path), submit(vault, tmp_path, "c")
        vault.objects.put_file(tmp_path / "zip")
        blob = vault.objects.put_blob(b"1")
        swept = vault.sweep(NONE)
        assert (swept.jobs, swept.blobs, len(swept.uploads)) == ([job.id], [f"blobs/{blob}"], 1)
        assert [job.id for job in vault.jobs.list()] == [waiting.id]
        assert vault.objects.list("data") == [f"data/{waiting.data}"]
        assert vault.objects.list("condemned") == []


def test_no_upload_goes_while_a_job_cannot_be_read(vault: Vault, tmp_path: Path) -> None:
    job = submit(vault, tmp_path)
    vault.objects.put(f"jobs/{job.id}/request.json", b"{")
    assert vault.sweep(NONE).uploads == []
    assert vault.objects.list("data") == [f"data/{job.data}"]


def test_blobs_of_a_version_that_was_decided_on_stay(vault: Vault, tmp_path: Path) -> None:
    """The worker died before the commit; a worker that comes days later publishes it."""
    job = submit(vault, tmp_path)
    model = vault.models.create("lines", {})
    blob = vault.objects.put_blob(b"engram")
    commit = Commit.first(model, engrams=(blob,), job=job.id)
    vault.jobs.decisions.create(job.id, Decision.after(None, commit))
    assert vault.sweep(NONE).blobs == []
    vault.log.append("lines", commit)
    vault.jobs.finish(job.id, "succeeded", result={})
    assert vault.sweep(NONE).blobs == []
    vault.models.delete("lines")
    assert vault.sweep(NONE).blobs == [f"blobs/{blob}"]


def test_what_is_written_for_a_job_that_was_swept_goes_too(vault: Vault, tmp_path: Path) -> None:
    """It was written by a suspended worker, and names no blobs."""
    swept, waiting = over(vault, tmp_path), submit(vault, tmp_path, "b")
    assert vault.sweep(NONE).jobs == [swept.id]
    commit = Commit.first(vault.models.create("lines", {}), engrams=(vault.objects.put_blob(b"engram"),))
    vault.jobs.decisions.create(swept.id, Decision.after(None, commit))
    found = vault.sweep(replace(NONE, jobs=timedelta(days=30)))
    assert (len(found.blobs), found.jobs) == (1, [])
    make_old(vault, f"jobs/{swept.id}", 31)
    make_old(vault, f"jobs/{waiting.id}", 31)
    assert vault.sweep().jobs == [swept.id]
    assert [job.id for job in vault.jobs.open_jobs()] == [waiting.id]


def test_no_blob_goes_while_a_decision_cannot_be_read(vault: Vault, tmp_path: Path) -> None:
    job = submit(vault, tmp_path)
    vault.objects.put_blob(b"engram")
    vault.objects.put(f"jobs/{job.id}/decisions/0001.json", b"{}")
    assert vault.sweep(NONE).blobs == []
    vault.jobs.finish(job.id, "failed", error={})  # what is over names nothing any more
    assert len(vault.sweep(NONE).blobs) == 1


@pytest.mark.parametrize("harm", ["damaged", "missing"])
def test_no_blob_goes_while_a_commit_cannot_be_read(vault: Vault, harm: str) -> None:
    model = vault.models.create("lines", {})
    first = Commit.first(model, engrams=(vault.objects.put_blob(b"1"),))
    vault.log.append("lines", first)
    vault.log.append("lines", first.following("activate", engrams=()))
    path = f"models/lines/log/{model.lineage}/{0:08d}.json"
    if harm == "damaged":
        vault.objects.put(path, b"{")
    else:
        vault.objects.delete(path)
    assert Vault.connect(vault.settings).sweep(NONE).blobs == []
    assert len(vault.objects.list("blobs")) == 1


class Killed(BaseException):
    """Raised in the middle of a sweep."""


@contextmanager
def killed_at(objects: ObjectStore, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, deletion number `number` raises `Killed`."""
    left = iter(range(number))
    delete = objects.delete

    def delete_or_die(path: str) -> None:
        if next(left, None) is None:
            raise Killed
        delete(path)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", delete_or_die)
        yield


def test_a_sweep_that_dies_at_any_moment_is_finished_by_the_next(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, done = 0, False
    while not done:
        job = over(vault, tmp_path)
        with killed_at(vault.objects, number, monkeypatch):
            try:
                Sweep(vault.objects, NONE).run()
                done = True
            except Killed:
                number += 1
        fresh = Vault.connect(vault.settings)
        assert fresh.jobs.open_jobs() == []
        try:
            assert fresh.jobs.get(job.id).over
        except UnknownJob:
            assert fresh.jobs.list() == []
        Sweep(fresh.objects, NONE).run()
        assert everything(fresh.objects) == []
        fresh.close()
    assert number > 6


def test_what_is_published_beside_sweeps_stays(vault: Vault) -> None:
    """Old unreferenced blobs are stored again and named at the very moment at which they are removed."""
    model = vault.models.create("lines", {})
    vault.log.append("lines", Commit.first(model))
    contents = [os.urandom(64) for _ in range(60)]
    for data in contents:
        make_old(vault, f"blobs/{vault.objects.put_blob(data)}", 2)
    enough = threading.Event()
    removed: list[str] = []

    def publish() -> None:
        with Vault.connect(vault.settings) as own:
            # Otherwise the sweeps may begin too late to interfere.
            wait_until(lambda: len(own.objects.list("blobs")) < len(contents), 60)
            for data in contents:
                head = own.log.head("lines")
                assert head is not None
                sha = own.objects.put_blob(data)
                own.log.append("lines", head.following("learn", engrams=(*head.engrams, sha)))
        enough.set()

    def sweep() -> None:
        with Vault.connect(vault.settings) as own:
            while not enough.is_set():
                removed.extend(own.sweep(SweepAges.all(timedelta(hours=2))).blobs)

    race(3, lambda number: (publish, sweep, sweep)[number]())
    head = vault.log.head("lines")
    assert head is not None
    assert len(head.engrams) == len(contents)
    for sha in head.engrams:
        vault.objects.get_blob(sha)
    assert removed


def test_a_blob_made_young_by_a_writer_that_died_is_stored_once_more(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep has seen the blob, and is about to remove it, when two writers store it."""
    data = b"both store this"
    sha = vault.objects.put_blob(data)
    make_old(vault, f"blobs/{sha}", 2)
    other, come = ObjectStore.connect(vault.settings), threading.Event()
    written_at = other.written_at

    def written_at_noted(path: str) -> datetime | None:
        found = written_at(path)
        if path.startswith("condemned/"):
            come.set()
        return found

    def store() -> None:
        other.put_blob(data)
        come.set()

    second = threading.Thread(target=store)
    delete = vault.objects.delete

    def delete_late(path: str) -> None:
        if path.startswith("blobs/"):
            vault.objects.put(path, data)  # all that the first gets to do
            second.start()
            assert come.wait(60)
        delete(path)

    monkeypatch.setattr(other, "written_at", written_at_noted)
    monkeypatch.setattr(vault.objects, "delete", delete_late)
    assert vault.sweep(SweepAges.all(timedelta(hours=2))).blobs == [f"blobs/{sha}"]
    second.join()
    assert vault.objects.get_blob(sha) == data


def test_jobs_submitted_beside_sweeps_stay(vault: Vault, tmp_path: Path) -> None:
    enough = threading.Event()

    def work() -> list[Job]:
        jobs = []
        for number in range(20):
            folder = tmp_path / str(number)
            folder.mkdir()
            job = submit(vault, folder, str(number))
            jobs.append(vault.jobs.finish(job.id, "failed") if number % 2 else job)
        enough.set()
        return jobs

    def sweep() -> list[Job]:
        while not enough.is_set():
            vault.sweep(SweepAges.all(timedelta(hours=1)))
        return []

    jobs, *_ = race(3, lambda number: work() if number == 0 else sweep())
    assert [job.id for job in Vault.connect(vault.settings).jobs.list()] == [job.id for job in reversed(jobs)]
    assert vault.objects.list("data") == sorted(f"data/{job.data}" for job in jobs if not job.over)
