"""Tests of failing storage: atomic writes, clear errors, recovery by itself.

The long form is `python -m benchmarks storage`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testing.data.models import create, submit
from testing.data.planted_store import SystemUnderTest, system_under_test
from testing.servers.faulty_s3 import FaultyS3
from testing.servers.service import wait_until
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from worker.instrumentation import PhaseRecorder

PATIENCE = 3.0
"""Seconds that S3 may be silent: short for a test, and enough for a server on a busy machine."""


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[FaultyS3]:
    """An S3 server with injected faults."""
    server = FaultyS3(s3_endpoint)
    yield server
    server.close()


@pytest.fixture
def faulty(s3: FaultyS3, s3_settings: VaultSettings) -> Iterator[SystemUnderTest]:
    """A system over it, with a model of one task."""
    settings = s3_settings.model_copy(update={"s3_endpoint": s3.url, "store_timeout_seconds": PATIENCE})
    with system_under_test(settings) as system:
        create(system.vault)
        job = submit(system.vault, "low", (0, 1))
        assert system.wait_for_job(job.id)["state"] == "succeeded"
        wait_until(lambda: system.served_version() == 1, 60)
        yield system


def test_one_request_in_ten_fails_in_some_way(faulty: SystemUnderTest, s3: FaultyS3) -> None:
    with s3.failing(error=0.03, throttle=0.03, cut=0.02, lost=0.015, hang=0.005):
        jobs = []
        for task, digits in {"mid": (2, 3), "high": (8, 9)}.items():
            deadline = time.monotonic() + 240
            while (answer := faulty.upload(task, digits)).status_code != 202:
                # A submission that cannot be stored is refused as a whole.
                assert answer.status_code == 503, answer.text
                assert "Retry-After" in answer.headers
                assert time.monotonic() < deadline
            jobs.append(answer.json()["job"]["id"])
        for job in jobs:
            done = faulty.wait_for_job(job)
            assert done["state"] == "succeeded", done
        wait_until(lambda: faulty.served_version() == 3, 120)
        # The service continues to poll for newer versions.
        wait_until(lambda: s3.seen.keys() >= {"error", "throttle", "cut", "lost"}, 120)
    faulty.assert_intact(3)


@pytest.mark.parametrize("times", [1, 2])
def test_a_read_that_hangs_is_made_again(s3: FaultyS3, s3_settings: VaultSettings, times: int) -> None:
    objects = ObjectStore.connect(
        s3_settings.model_copy(update={"s3_endpoint": s3.url, "store_timeout_seconds": PATIENCE})
    )
    name, record = objects.put_blob(b"large"), {"small": 1}
    objects.create_json("models/small.json", record)
    with s3.hanging(times), ThreadPoolExecutor(2) as readers:
        blob = readers.submit(objects.get_blob, name)
        read = readers.submit(objects.get_json, "models/small.json")
        assert blob.result(120) == b"large"
        assert record.items() <= read.result(120).items()
    assert s3.seen["hang"] == 2 * times


def held_in_training(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Suspend the work at the beginning of training; the first event is set then, the second one continues it."""
    enter, stands, go_on = PhaseRecorder.enter, threading.Event(), threading.Event()

    def entered(self: PhaseRecorder, name: str) -> None:
        enter(self, name)
        if name == "training":
            stands.set()
            assert go_on.wait(240)

    monkeypatch.setattr(PhaseRecorder, "enter", entered)
    return stands, go_on


@pytest.mark.parametrize("fault", ["error", pytest.param("hang", marks=pytest.mark.slow)])
def test_while_s3_fails_altogether_models_answer_and_jobs_wait(
    faulty: SystemUnderTest, s3: FaultyS3, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training, go_on = held_in_training(monkeypatch)
    waiting = submit(faulty.vault, "mid", (2, 3))
    assert training.wait(120)
    with s3.failing(**{fault: 1.0}):
        go_on.set()
        deadline = time.monotonic() + 240
        while f"job {waiting.id}: attempt 1 broke off" not in caplog.text:
            assert time.monotonic() < deadline
            assert faulty.served_version() == 1
            assert faulty.client.get("/readyz").status_code == 200
        began = time.monotonic()
        for refused in (faulty.upload("other", (4, 5)), faulty.client.get(f"/v1/jobs/{waiting.id}")):
            assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable"), refused.text
            assert "Retry-After" in refused.headers
        assert time.monotonic() - began < 60  # a request that is not given up hangs for minutes
    done = faulty.wait_for_job(waiting.id)
    assert done["state"] == "succeeded", done
    wait_until(lambda: faulty.served_version() == 2, 120)
    faulty.assert_intact(2)
    given_back = [attempt.released for attempt in faulty.vault.jobs.attempts(waiting.id)]
    assert given_back == [True] * (len(given_back) - 1) + [False], "what the outage broke off does not count"
    assert len(given_back) > 1


def test_bits_that_flip_on_their_way_are_noticed(faulty: SystemUnderTest, s3: FaultyS3) -> None:
    with s3.failing(flip=0.05):
        while (answer := faulty.upload("mid", (2, 3))).status_code != 202:
            assert answer.json()["code"] in ("damaged", "store_unavailable"), answer.text
        done = faulty.wait_for_job(answer.json()["job"]["id"])
    # A blob that is damaged on the second read as well fails the job by name; no version is made of it.
    assert done["state"] == "succeeded" or done["error"]["code"] in ("damaged", "not_found"), done
    faulty.assert_intact(2 if done["state"] == "succeeded" else 1)


def test_the_disk_is_full_during_a_commit(tmp_path: Path, redis_url: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-m", "testing.drills.full_disk", "limit", str(disk), redis_url]
    mount = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") and subprocess.run([*mount, "true"], capture_output=True).returncode == 0:
        # A file system of the test's own; where nobody may mount one, a limit on files hits the same calls.
        script = 'mount -t tmpfs -o size=4m engram "$1" && shift && exec "$@"'
        command[3] = "tmpfs"
        command = [*mount, "sh", "-c", script, "sh", str(disk), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
