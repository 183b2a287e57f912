"""Latency and failures under load while versions are swapped: two replicas, 16 connections, two tasks.

    python -m benchmarks live_swap [--seconds 60] [--connections 16] [--out results.jsonl]

Real processes throughout: a Redis, a worker, two service replicas over one folder. The model is a `cnn` for 28 x 28
pixels and learns the bundled handwritten digits. Measured are failed requests, the versions that answer, and the delay
from a version's publication to its first answer on each replica.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import datetime
from pathlib import Path

from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from service.cli.digits import tasks
from testing.drills.load import Load
from testing.processes.stack import Stack, started

MODEL = "digits"


def learn(stack: Stack, name: str, archive: bytes) -> int:
    """Learn one task with the default options; returns its version."""
    files, form = {"data": ("data.zip", archive)}, {"name": name}
    job = stack.finish(stack.client.post(f"/v1/models/{MODEL}/tasks", data=form, files=files), 300)
    assert job["state"] == "succeeded", job
    version: int = job["result"]["version"]
    return version


def run(seconds: float, connections: int) -> dict[str, object]:
    first, *later = tasks()[:3]
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as stack:
        shape = {"channels": 1, "height": 28, "width": 28}
        stack.client.post("/v1/models", json={"name": MODEL, "backbone": "cnn", "input": shape}).raise_for_status()
        learn(stack, first.name, first.archive)
        began = time.monotonic()
        with Load(stack.replicas, MODEL, first.held_out[0][0], connections) as load:
            for number, task in enumerate(later):
                time.sleep(max(0.0, began + seconds * number / len(later) - time.monotonic()))
                learn(stack, task.name, task.archive)
            time.sleep(max(0.0, began + seconds - time.monotonic()))
        elapsed = time.monotonic() - began
        delays = {}
        for version in range(2, 2 + len(later)):
            commit = stack.client.get(f"/v1/models/{MODEL}/versions/{version}").json()
            published = datetime.fromisoformat(commit["created_at"]).timestamp()
            delays[version] = [round(load.first_seen[replica, version] - published, 3) for replica in stack.replicas]
    return {
        "seconds": round(elapsed, 1),
        "connections": connections,
        "answers": load.answers,
        "failed": len(load.failures),
        "versions": sorted(load.versions),
        "seconds_until_served": delays,
        "slowest_answer": round(load.slowest, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks live_swap", description="The live swap under load")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--out", type=Path, help="append one JSON line")
    options = parser.parse_args()
    result = {"benchmark": "live_swap", **run(options.seconds, options.connections), **provenance(threads=1)}
    for name, value in result.items():
        print(f"{name:22}{value}")
    if options.out:
        append(options.out, result)
