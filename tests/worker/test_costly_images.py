"""Tests of jobs whose uploads hold images that take long to decode."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from testing.data.costly import slow_jpeg
from testing.data.digits import QUICK, archive
from testing.data.models import MODEL, worker_settings
from vault.jobs.job import Job
from vault.vault import Vault
from worker.attempt import run_attempt


@pytest.fixture(scope="module")
def slow() -> bytes:
    return slow_jpeg()


def done(vault: Vault, folder: Path, extra: dict[str, bytes], settings: dict[str, Any], **options: Any) -> Job:
    """The job that an attempt made of an upload of two digits and further images."""
    upload = folder / "upload.zip"
    upload.write_bytes(archive((0, 1), extra=extra))
    data = vault.objects.put_file(upload)
    job = vault.jobs.submit(MODEL, "low", data, QUICK | options, lineage=vault.models.get(MODEL).lineage)
    limits = {"max_image_scans": 10**6, "max_image_parts": 10**6, **settings}
    token = vault.jobs.start_attempt(job.id)
    return run_attempt(vault, job, token, lambda: False, worker_settings(vault, **limits))


def test_a_costly_image_is_left_out_and_named(ready: Vault, tmp_path: Path, slow: bytes) -> None:
    job = done(ready, tmp_path, {"digit-1/slow.jpg": slow}, {"max_image_seconds": 0.2})
    assert job.state == "succeeded"
    assert job.result is not None
    (left_out,) = job.result["report"]["unreadable"]
    assert (left_out["name"], left_out["code"]) == ("digit-1/slow.jpg", "image_too_costly")
    assert left_out["detail"] == "decoding the image takes longer than 0.2 s"


def test_a_job_ends_in_time_and_its_worker_is_free(ready: Vault, tmp_path: Path, slow: bytes) -> None:
    others = decoding()
    job = done(ready, tmp_path, {"digit-0/0.jpg": slow}, {"max_image_seconds": 600}, max_seconds=2)
    assert (job.state, job.error and job.error["code"]) == ("failed", "job_timeout")
    assert decoding() <= others


def decoding() -> set[int]:
    """The ids of all processes that decode images for this one."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"isolation.child" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue  # it has just ended
    return found
