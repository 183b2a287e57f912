"""One attempt of a worker at one job in a process of its own, with its bytes, memory and time.

    python -m benchmarks.growth.attempt SETTINGS JOB

`SETTINGS` are those of the worker, as JSON. The last line of the output is the figures, as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from prometheus_client import Histogram

from benchmarks.growth.storage import CountingBackend
from vault.coordination import connection
from vault.storage.local import LocalBackend
from vault.storage.object_store import ObjectStore
from vault.vault import Vault
from worker import metrics, resources
from worker.attempt import run_attempt
from worker.settings import WorkerSettings


def measured(settings: WorkerSettings, job_id: str) -> dict[str, Any]:
    """Work on a job until it has a result; returns what that took.

    Raises
    ------
    RuntimeError
        The job did not succeed.
    """
    assert settings.store_folder is not None, "the store is a folder, whose bytes can be counted"
    storage = CountingBackend(LocalBackend(settings.store_folder))
    resources.prepare(settings.worker_threads, settings.device)
    with Vault(settings, ObjectStore(storage), connection.connect(settings.redis_url)) as vault:
        job = vault.jobs.get(job_id)
        token = vault.jobs.start_attempt(job.id)
        storage.bytes_read.clear()
        storage.bytes_written.clear()
        idle, began, worked = highest_resident(), time.monotonic(), time.process_time()
        done = run_attempt(vault, job, token, lambda: False, settings)
        seconds, worked = time.monotonic() - began, time.process_time() - worked
    if done.state != "succeeded" or done.result is None:
        raise RuntimeError(f"learning {job.task} ended as {done.state}: {done.error}")
    return {
        "task": job.task,
        "version": done.result["version"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(worked, 2),
        "phases": phase_seconds(metrics.phases),
        "learning_phases": done.result["report"]["seconds"],
        "bytes_read": dict(storage.bytes_read),
        "bytes_written": dict(storage.bytes_written),
        "idle_bytes": idle,
        "peak_bytes": highest_resident(),
    }


def highest_resident() -> int:
    """The most bytes that this program had in memory.

    Linux also counts the memory of whoever started the program into `ru_maxrss`, which is not wanted here.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def phase_seconds(phases: Histogram) -> dict[str, float]:
    """Seconds in each phase of all attempts of this process."""
    return {
        sample.labels["phase"]: round(sample.value, 3)
        for metric in phases.collect()
        for sample in metric.samples
        if sample.name.endswith("_sum")
    }


if __name__ == "__main__":
    print(json.dumps(measured(WorkerSettings(**json.loads(sys.argv[1])), sys.argv[2])))
