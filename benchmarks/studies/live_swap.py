"""Latency and failures under load while versions are swapped: two replicas, 16 connections, two tasks.

    python -m benchmarks live_swap [--seconds 60] [--connections 16] [--activate SECONDS] [--out results.jsonl]

Real processes throughout: a Redis, a worker, two service replicas over one folder. The model is a `cnn` for 28 x 28
pixels and learns the bundled handwritten digits. Measured are failed requests, the versions that answer, and the delay
from a version's publication to its first answer on each replica. With `--activate` nothing is learned under load: all
three tasks are there before it, then as long as is given nothing changes, and as long again versions with two and with
three tasks are activated in turn. So the latencies beside swaps are compared with those without, on the same cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from itertools import cycle
from pathlib import Path

import numpy

from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from service.cli.digits import tasks
from testing.drills.load import Load
from testing.processes.stack import Stack, started

MODEL = "digits"
WARM_SECONDS = 3.0
"""Of load before anything is measured."""


def learn(stack: Stack, name: str, archive: bytes) -> int:
    """Learn one task with the default options; returns its version."""
    files, form = {"data": ("data.zip", archive)}, {"name": name}
    job = stack.finish(stack.client.post(f"/v1/models/{MODEL}/tasks", data=form, files=files), 300)
    assert job["state"] == "succeeded", job
    version: int = job["result"]["version"]
    return version


def create(stack: Stack) -> None:
    shape = {"channels": 1, "height": 28, "width": 28}
    stack.client.post("/v1/models", json={"name": MODEL, "backbone": "cnn", "input": shape}).raise_for_status()


def run(seconds: float, connections: int) -> dict[str, object]:
    first, *later = tasks()[:3]
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as stack:
        create(stack)
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


def run_idle(seconds: float, connections: int, every: float) -> dict[str, object]:
    """As `run`, of versions that are activated in place of being learned."""
    learned = tasks()[:3]
    with tempfile.TemporaryDirectory() as folder, started(Path(folder)) as stack:
        create(stack)
        for task in learned:
            learn(stack, task.name, task.archive)
        image = learned[0].held_out[0][0]
        with Load(stack.replicas, MODEL, image, connections):
            time.sleep(WARM_SECONDS)
        with Load(stack.replicas, MODEL, image, connections) as quiet:
            time.sleep(seconds)
        with Load(stack.replicas, MODEL, image, connections) as load:
            until, targets = time.monotonic() + seconds, cycle((2, 3))
            while time.monotonic() < until:
                path = f"/v1/models/{MODEL}/versions/{next(targets)}/activate"
                stack.client.post(path).raise_for_status()
                time.sleep(every)
    return {
        "seconds": seconds,
        "connections": connections,
        "activated_every": every,
        "answers": load.answers,
        "failed": len(load.failures) + len(quiet.failures),
        "versions": len(load.versions),
        "quiet_ms": milliseconds(quiet.seconds),
        "swapping_ms": milliseconds(load.seconds),
        "p99_ratio": round(percentile(load.seconds, 99) / percentile(quiet.seconds, 99), 2),
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Percentiles, and the slowest, in milliseconds."""
    found = {f"p{share}": percentile(seconds, share) for share in (50, 99)} | {"slowest": max(seconds)}
    return {name: round(1e3 * value, 2) for name, value in found.items()}


def percentile(values: Sequence[float], share: float) -> float:
    return float(numpy.percentile(values, share))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks live_swap", description="The live swap under load")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--activate", type=float, help="seconds between activations, in place of learning")
    parser.add_argument("--out", type=Path, help="append one JSON line")
    options = parser.parse_args()
    if options.activate is None:
        found = run(options.seconds, options.connections)
    else:
        found = run_idle(options.seconds, options.connections, options.activate)
    result = {"benchmark": "live_swap", **found, **provenance(threads=1)}
    for name, value in result.items():
        print(f"{name:22}{value}")
    if options.out:
        append(options.out, result)
