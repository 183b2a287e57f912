"""Drill of overload while tasks are learned: refusals, latencies, growth of memory, files and threads.

    python -m benchmarks saturation [--minutes 30] [--clients 60] [--out results.jsonl] [--plot memory.svg]

Real processes over one folder: a Redis, a service with low limits, a worker. The clients send requests back to back:
predictions of one image and of many, heatmaps, lists, certificates, event streams, and unknown paths. Beside them model
after model learns two tasks and is deleted. Memory, open files and threads of the service and
of the worker are read every second; slopes are of the second half, with their standard errors.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.drills.record import parser, record
from benchmarks.harness.curves import draw
from service.lifecycle.tuning import TUNING
from testing.drills.crowd import LOW_LIMITS, Crowd, Learning, prepare
from testing.drills.growth import MIB, ProcessGrowth, ProcessWatch, Sample
from testing.processes.stack import started

NOISE = 3.0
"""A slope counts as growth beyond so many standard errors, if it also exceeds `RELEVANT_GROWTH`."""
RELEVANT_GROWTH = {"rss": 20.0, "files": 10.0, "threads": 5.0}
"""MiB, files and threads per hour."""

PANELS: dict[str, Callable[[Sample], float]] = {
    "resident memory, MiB": lambda one: one.rss / MIB,
    "open files": lambda one: one.files,
    "threads": lambda one: one.threads,
}


def quantile(seconds: list[float], share: float) -> float:
    """The quantile in milliseconds that `share` of the values do not exceed."""
    ordered = sorted(seconds)
    return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def run(minutes: float, clients: int, seed: int) -> tuple[dict[str, Any], dict[str, list[Sample]]]:
    """Run the drill; returns its figures, and the samples of each process."""
    with ExitStack() as parts:
        folder = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        stack = parts.enter_context(started(folder, replicas=1, **LOW_LIMITS, **TUNING))
        job = prepare(stack)
        watch = ProcessWatch({"service": stack.services[0].pid, "worker": stack.worker.pid})
        with watch, Crowd(stack.replicas[0], job, clients, seed) as crowd, Learning(stack) as learning:
            time.sleep(minutes * 60)
    grown = {name: ProcessGrowth(samples) for name, samples in watch.samples.items()}
    figures: dict[str, Any] = {
        "minutes": minutes,
        "clients": clients,
        "requests": crowd.statuses.total(),
        "statuses": dict(sorted(crowd.statuses.items())),
        "refused": dict(crowd.refused),
        "milliseconds_p50_p99": {
            name: [quantile(seconds, 0.5), quantile(seconds, 0.99)] for name, seconds in sorted(crowd.seconds.items())
        },
        "jobs": dict(learning.jobs),
        **{name: growth.figures() for name, growth in grown.items()},
        "faults": [*crowd.wrong[:20], *learning.wrong[:20], *growths(grown)],
    }
    return figures, watch.samples


def growths(grown: dict[str, ProcessGrowth]) -> list[str]:
    """The trends that count as growth, one sentence each."""
    found = []
    for name, growth in grown.items():
        for what, relevant in RELEVANT_GROWTH.items():
            trend = getattr(growth, what)
            if trend.slope * 3600 > relevant and trend.slope > NOISE * trend.error:
                found.append(f"the {name}'s {what}: {trend.slope * 3600:.1f} an hour")
    return found


def plot(samples: dict[str, list[Sample]], path: Path) -> None:
    """Plot memory, files and threads over time."""
    minutes = {name: [one.seconds / 60 for one in seen] for name, seen in samples.items()}
    panels = {
        title: {name: (minutes[name], [float(of(one)) for one in seen]) for name, seen in samples.items()}
        for title, of in PANELS.items()
    }
    draw(panels, "minutes at saturation", path)


def main() -> int:
    options = parser("saturation", "More clients than can be served")
    options.add_argument("--minutes", type=float, default=30.0)
    options.add_argument("--clients", type=int, default=60)
    options.add_argument("--plot", type=Path, help="picture of memory, files and threads")
    args = options.parse_args()
    figures, samples = run(args.minutes, args.clients, args.seed)
    record("saturation", {"seed": args.seed, **figures}, args.out)
    if args.plot is not None:
        plot(samples, args.plot)
    return 1 if figures["faults"] else 0
