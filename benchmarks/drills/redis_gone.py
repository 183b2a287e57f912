"""Drill of a Redis outage while clients predict, one task is learned and others are submitted.

    python -m benchmarks redis_gone [--seconds 60] [--connections 16] [--epochs 1000] [--out results.jsonl]

Real processes over one folder: a Redis that is killed and restarted empty, a service and a worker. No prediction may
fail, the running task must be learned in one attempt, and every submission meanwhile must be answered 503 with
`Retry-After` and leave nothing behind. Afterwards everything must recover by itself.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from benchmarks.drills.record import parser, record
from service.lifecycle.tuning import TUNING
from testing.drills.redis_outage import Outage, run_outage
from testing.processes.stack import started


def faults(found: Outage) -> list[str]:
    """The violated requirements."""
    wrong = [f"a prediction failed: {failure}" for failure in found.failures]
    wrong += [f"left by a refused submission: {path}" for path in found.half_accepted]
    wrong += [f"a submission was answered {one}" for one in set(found.submissions) - {(503, "redis_unavailable", True)}]
    wrong += [f"the job {name} has {state}" for name, state in found.jobs.items() if state != "succeeded"]
    if found.versions != [1, 0]:
        wrong.append(f"the versions are {found.versions}")
    return wrong


def main() -> int:
    options = parser("redis_gone", "Redis is away for a while")
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--connections", type=int, default=16)
    options.add_argument("--epochs", type=int, default=1000, help="of the task that is learned meanwhile")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), replicas=1, **TUNING) as stack:
        found = run_outage(stack, args.seconds, args.connections, epochs=args.epochs, patience=args.epochs)
    wrong = faults(found)
    figures = asdict(found)
    figures["submissions"] = {" ".join(map(str, kind)): count for kind, count in Counter(found.submissions).items()}
    figures["failures"] = len(found.failures)
    record("redis_gone", {"connections": args.connections, **figures, "faults": wrong}, args.out)
    return 1 if wrong else 0
