"""Tests of one attempt at one job, without Celery."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from PIL import Image

from engram.certificate import Certificate, certify, compare
from engram.config.options import LearnOptions
from engram.errors import RetentionViolated
from engram.memory import dump
from service.models import versions
from testing.data.digits import QUICK, archive
from testing.data.models import MODEL, create, examples, learn, submit, worker_settings
from testing.data.patterns import network_of
from vault.commit_log import Commit
from vault.errors import JobOver, LeaseLost, StoreUnavailable
from vault.jobs.job import Job
from vault.settings import VaultSettings
from vault.vault import Vault
from worker.attempt import run_attempt
from worker.interruption import Interrupted, ModelChanged
from worker.progress import ProgressReporter
from worker.versions import publishing
from worker.versions.blobs import JobBlobs
from worker.versions.verification import before_learning, verify


def run(vault: Vault, job: Job, token: int | None = None, stop: Any = lambda: False, **changes: Any) -> Job:
    token = token or vault.jobs.start_attempt(job.id)
    return run_attempt(vault, job, token, stop, worker_settings(vault, **changes))


def head(vault: Vault) -> Commit:
    found = vault.log.head(MODEL)
    assert found is not None
    return found


def test_a_job_becomes_a_version(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    done = run(ready, job)
    assert (done.state, done.error) == ("succeeded", None)
    assert done.result is not None
    assert (done.result["version"], done.result["task"]) == (1, "low")
    commit = head(ready)
    assert (commit.kind, commit.task, commit.job, commit.token) == ("learn", "low", job.id, 1)
    assert commit.tasks == ({"name": "low", "classes": ["digit-0", "digit-1"], "job": job.id},)
    assert len(commit.engrams) == 3
    assert commit.report is not None
    report = json.loads(ready.objects.get_blob(commit.report))
    assert report == done.result["report"]
    assert (report["task"], report["unreadable"]) == ("low", [])
    assert {"loading", "reading", "training", "verifying"} <= report["phases"].keys()
    assert sum(report["seconds"].values()) <= sum(report["phases"].values())
    assert ready.objects.list("data") == []
    assert ready.jobs.open_jobs() == []


def test_the_certificate_of_a_version_holds_for_what_its_bytes_give(ready: Vault) -> None:
    for task, digits in (("low", (0, 1)), ("mid", (2, 3))):
        learn(ready, task, digits)
    model = ready.models.get(MODEL)
    first, second = ready.log.read(MODEL, 1), ready.log.read(MODEL, 2)
    assert second.engrams[:3] == first.engrams
    assert first.certificate is not None
    assert second.certificate is not None
    old = Certificate.from_dict(json.loads(ready.objects.get_blob(first.certificate)))
    new = Certificate.from_dict(json.loads(ready.objects.get_blob(second.certificate)))
    assert compare(old, new) == []
    assert list(new.tasks) == ["low", "mid"]
    assert list(new.classes) == ["low", "mid"]
    assert new.classes["low"] == old.classes["low"]
    result = ready.jobs.get(second.job or "").result or {}
    report = result["report"]
    assert new.classes["mid"] == {name: report[name] for name in ("balanced_accuracy", "per_class")}
    assert certify(publishing.load_memory(ready, model, second)).tasks == new.tasks


def test_options_that_only_a_later_release_knows_fail_the_job_at_once(ready: Vault) -> None:
    refused = run(ready, submit(ready, "low", (0, 1), later=True))
    assert (refused.state, refused.error and refused.error["code"]) == ("failed", "unsupported_format")


def test_a_recall_that_cannot_be_measured_is_refused_before_any_work(ready: Vault) -> None:
    refused = run(ready, submit(ready, "low", (0, 1), min_recall=0.9))
    assert (refused.state, refused.error and refused.error["code"]) == ("failed", "recall_unmeasurable")
    assert head(ready).tasks == ()


def longest_pause(moments: list[float]) -> float:
    return max(later - earlier for earlier, later in itertools.pairwise(moments))


def test_progress_is_told_phase_by_phase_and_every_second(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1), epochs=60, patience=60)
    reports: list[tuple[float, str, float]] = []
    over, beats = threading.Event(), [time.monotonic()]

    def beat() -> None:
        while not over.wait(worker_settings(ready).progress_seconds):
            beats.append(time.monotonic())

    async def follow() -> None:
        async for _, event in ready.events.follow(job.id):
            if "phase" in event:
                reports.append((time.monotonic(), event["phase"], event["fraction"]))

    follower = threading.Thread(target=asyncio.run, args=(follow(),))
    metronome = threading.Thread(target=beat)
    follower.start()
    metronome.start()
    run(ready, job)
    follower.join()
    over.set()
    metronome.join()
    phases = list(dict.fromkeys(phase for _, phase, _ in reports))
    assert phases[:2] == ["loading", "training"]
    assert phases[-2:] == ["verifying", "publishing"]
    fractions = [fraction for _, _, fraction in reports]
    assert fractions == sorted(fractions)
    # Where the machine keeps all threads waiting, it keeps the metronome waiting too.
    pauses = longest_pause([moment for moment, _, _ in reports]), longest_pause([*beats, time.monotonic()])
    assert pauses[0] < 1.0 + pauses[1]


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_no_phase_is_left_out_unless_that_delays_the_end(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.progress._END_SECONDS", seconds)
    reports: list[tuple[str, float]] = []
    begun, go_on = threading.Event(), threading.Event()

    def publish(figures: dict[str, Any]) -> None:
        begun.set()
        assert go_on.wait(60)
        reports.append((figures["phase"], figures["fraction"]))

    with ProgressReporter(publish, 0.01) as reporter:
        reporter.report("loading", 0.0)
        assert begun.wait(60)
        for phase, fraction in (("training", 0.1), ("training", 0.2), ("verifying", 0.9), ("publishing", 1.0)):
            reporter.report(phase, fraction)
        threading.Timer(0.1, go_on.set).start()
    late = [("training", 0.1), ("verifying", 0.9), ("publishing", 1.0)]
    assert reports == [("loading", 0.0), *(late if seconds else [])]


def test_some_unreadable_images_are_left_out_and_listed(ready: Vault, caplog: pytest.LogCaptureFixture) -> None:
    bad = {"digit-0/zz.png": b"", "digit-1/zz.png": b"no image"}
    with_bad = archive((0, 1), 60, bad)
    done = run(ready, _job(ready, with_bad))
    assert done.state == "succeeded"
    assert done.result is not None
    left_out = done.result["report"]["unreadable"]
    assert [(one["name"], one["code"]) for one in left_out] == [
        ("digit-0/zz.png", "empty_image"),
        ("digit-1/zz.png", "not_an_image"),
    ]
    refused = run(ready, _job(ready, with_bad, "strict", max_unreadable=0.001))
    assert (refused.state, refused.error and refused.error["code"]) == ("failed", "too_many_unreadable_images")
    assert "zz.png" in str(refused.error)
    assert f"job {refused.id} failed: too_many_unreadable_images" in caplog.text
    assert "zz.png" not in caplog.text  # names of files are not for the log
    assert head(ready).version == 1
    assert ready.objects.list("data") == []


def test_the_report_says_what_was_left_out_and_what_is_constant(ready: Vault) -> None:
    black = BytesIO()
    Image.new("L", (8, 8)).save(black, "PNG")
    extra = {f"digit-0/black{i}": black.getvalue() for i in range(9)} | {"digit-1/notes.txt": b"seven are unclear"}
    done = run(ready, _job(ready, archive((0, 1), 60, extra)))
    assert done.result is not None
    report = done.result["report"]
    assert report["unreadable"] == []
    assert report["left_out"] == {
        "count": 1,
        "folders": [
            {"folder": "digit-1", "reason": "not_an_image", "format": "text", "count": 1, "names": ["notes.txt"]}
        ],
        "unlisted": 0,
    }
    assert report["constant"] == {"digit-0": 9}
    first, *others = report["warnings"]
    assert first.startswith("9 of 69 images of class 'digit-0' are of a single colour each")
    assert [sentence.split(" rests on ")[0] for sentence in others] == [
        "the recall of 2 classes",
    ]


def _job(vault: Vault, data: bytes, task: str = "low", **options: Any) -> Job:
    path = Path(str(vault.settings.store_folder)).parent / "upload.zip"
    path.write_bytes(data)
    name = vault.objects.put_file(path)
    return vault.jobs.submit(MODEL, task, name, QUICK | options, lineage=vault.models.get(MODEL).lineage)


def test_a_task_learned_meanwhile_fails_the_job(ready: Vault) -> None:
    learn(ready, "low", (0, 1))
    done = run(ready, submit(ready, "low", (2, 3)))
    assert (done.state, done.error and done.error["code"]) == ("failed", "task_exists")


def test_a_job_for_a_model_that_is_gone_fails(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    ready.models.delete(MODEL)
    create(ready, MODEL, seed=7)
    done = run(ready, job)
    assert (done.state, done.error and done.error["code"]) == ("failed", "unknown_model")


def test_damaged_engrams_fail_the_job_and_publish_nothing(ready: Vault) -> None:
    learn(ready, "low", (0, 1))
    folder = ready.settings.store_folder
    assert folder is not None
    (folder / "blobs" / head(ready).engrams[1]).write_bytes(b"damaged")
    done = run(ready, submit(ready, "mid", (2, 3)))
    assert (done.state, done.error and done.error["code"]) == ("failed", "damaged")
    assert head(ready).version == 1


def test_a_damaged_model_ends_the_job(ready: Vault) -> None:
    job = submit(ready, "mid", (2, 3))
    ready.objects.put(f"models/{MODEL}/model.json", b"damaged")
    done = run(ready, job)
    assert (done.state, done.error and done.error["code"]) == ("failed", "damaged")
    assert done.error is not None
    assert f"models/{MODEL}/model.json" in done.error["detail"]


def test_a_version_whose_report_is_damaged_is_a_success_all_the_same(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    made = run(ready, job).result
    report = head(ready).report
    assert made is not None
    assert report is not None
    ready.objects.put(f"blobs/{report}", b"damaged")
    ready.objects.delete(f"jobs/{job.id}/result.json")  # as a worker leaves it that dies right after publishing
    with Vault.connect(ready.settings) as elsewhere:
        again = run(elsewhere, job)
    assert (again.state, again.result) == ("succeeded", {**made, "report": None})


def test_cancelling_ends_a_running_job(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1), epochs=1000, patience=1000)
    timer = threading.Timer(0.5, ready.jobs.request_cancel, (job.id,))
    timer.start()
    began = time.process_time()  # what others do with the processors does not count
    done = run(ready, job)
    assert time.process_time() - began < 8
    assert (done.state, done.error and done.error["code"]) == ("cancelled", "cancelled")
    assert head(ready).version == 0
    assert ready.objects.list("data") == []


def test_stopping_leaves_a_running_job_open(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1), epochs=1000, patience=1000)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Interrupted):
        run(ready, job, stop=stop.is_set)
    assert not ready.jobs.get(job.id).over
    assert len(ready.objects.list("data")) == 1
    assert run(ready, replace(job, options=QUICK)).state == "succeeded"


def test_an_attempt_that_was_overtaken_publishes_nothing(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    old = ready.jobs.start_attempt(job.id)
    new = ready.jobs.start_attempt(job.id)
    with pytest.raises(LeaseLost):
        run(ready, job, old)
    assert head(ready).version == 0
    assert run(ready, job, new).state == "succeeded"
    with pytest.raises((JobOver, LeaseLost)):
        run(ready, job, old)
    assert head(ready).version == 1


def test_a_version_whose_job_died_before_saying_so_is_found(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    token = ready.jobs.start_attempt(job.id)
    publication = _publication(ready, job, token)
    assert publication.publish(ready).version == 1
    done = run(ready, job)
    assert done.result is not None
    assert (done.state, done.result["version"]) == ("succeeded", 1)
    assert head(ready).version == 1


def _publication(vault: Vault, job: Job, token: int) -> publishing.Publication:
    """What an attempt at `job` has in its hands before it publishes."""
    found = head(vault)
    memory = publishing.load_memory(vault, vault.models.get(MODEL), found)
    report = memory.learn(job.task, examples((0, 1)), LearnOptions.model_validate(QUICK))
    return publishing.Publication(
        job, token, found, dump(memory), ("digit-0", "digit-1"), certify(memory).to_dict(), report.to_dict()
    )


def test_a_head_moved_by_budget_alone_is_built_upon(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    publication = _publication(ready, job, ready.jobs.start_attempt(job.id))
    versions.raise_budget(ready, MODEL, 30.0)
    versions.raise_budget(ready, MODEL, 40.0)
    commit = publication.publish(ready)
    assert (commit.version, commit.parent) == (3, 2)
    assert commit.budget == ready.log.read(MODEL, 2).budget
    assert publishing.load_memory(ready, ready.models.get(MODEL), commit).tasks[0].name == "low"


def test_a_head_with_other_engrams_is_not_built_upon(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    publication = _publication(ready, job, ready.jobs.start_attempt(job.id))
    learn(ready, "mid", (2, 3))
    with pytest.raises(ModelChanged):
        publication.publish(ready)
    assert head(ready).version == 1
    assert run(ready, job).state == "succeeded"
    assert [task["name"] for task in head(ready).tasks] == ["mid", "low"]


def test_a_version_that_would_change_old_answers_is_not_published(vault: Vault) -> None:
    create(vault, recipe=2)
    learn(vault, "low", (0, 1))
    memory = publishing.load_memory(vault, vault.models.get(MODEL), head(vault))
    before = before_learning(JobBlobs(vault.objects), head(vault), memory)
    proof = verify(dump(memory), before, "low", 1.0)
    assert proof.tasks == before.tasks
    assert set(proof.routing) == {"low"}
    network_of(memory).stack[0].head.bias.data[0] += 1e-6
    with pytest.raises(RetentionViolated, match="low"):
        verify(dump(memory), before, "low", 1.0)


def test_a_version_that_no_longer_answers_as_certified_is_not_built_upon(vault: Vault) -> None:
    create(vault, recipe=2)
    learn(vault, "low", (0, 1))
    memory = publishing.load_memory(vault, vault.models.get(MODEL), head(vault))
    network_of(memory).stack[0].head.bias.data[0] += 1e-6
    with pytest.raises(RetentionViolated, match="as certified for version 1"):
        before_learning(JobBlobs(vault.objects), head(vault), memory)


def test_data_at_an_address(ready: Vault, tmp_path: Path) -> None:
    path = tmp_path / "given.zip"
    path.write_bytes(archive((0, 1)))
    job = ready.jobs.submit(MODEL, "low", f"file://{path}", QUICK)
    assert run(ready, job).state == "succeeded"
    assert path.exists()
    gone = run(ready, ready.jobs.submit(MODEL, "mid", f"file://{path}.none", QUICK))
    assert (gone.state, gone.error and gone.error["code"]) == ("failed", "data_unavailable")


def test_a_store_that_is_away_leaves_the_job_open(ready: Vault) -> None:
    job = submit(ready, "low", (0, 1))
    token = ready.jobs.start_attempt(job.id)
    folder = ready.settings.store_folder
    assert folder is not None
    blobs = folder / "blobs"
    blobs.rename(folder / "away")
    blobs.write_bytes(b"a file where a folder should be")
    with pytest.raises(StoreUnavailable):
        run(ready, job, token)
    blobs.unlink()
    (folder / "away").rename(blobs)
    assert run(ready, job).state == "succeeded"


def test_all_of_it_over_s3_with_data_in_a_bucket(s3_settings: VaultSettings) -> None:
    with Vault.connect(s3_settings) as vault:
        create(vault)
        bucket, _, prefix = s3_settings.store_url.removeprefix("s3://").partition("/")
        vault.objects.put("given/digits.zip", archive((0, 1)))
        uri = f"s3://{bucket}/{prefix}/given/digits.zip"
        done = run(vault, vault.jobs.submit(MODEL, "low", uri, QUICK))
        assert (done.state, done.error) == ("succeeded", None)
        assert run(vault, submit(vault, "mid", (2, 3))).state == "succeeded"
        with ZipFile(BytesIO(archive((4, 5)))) as images:
            for name in images.namelist():
                vault.objects.put(f"given/folder/train/{name}", images.read(name))
        vault.objects.put("given/folder/test/digit-4/1.png", b"not looked at")
        found = run(vault, vault.jobs.submit(MODEL, "folder", uri.replace("digits.zip", "folder/"), QUICK))
        assert (found.state, found.error) == ("succeeded", None)
        gone = run(vault, vault.jobs.submit(MODEL, "high", f"{uri}.none", QUICK))
        assert (gone.state, gone.error and gone.error["code"]) == ("failed", "data_unavailable")
        assert vault.objects.exists("given/digits.zip")
