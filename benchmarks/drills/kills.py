"""Drill of SIGKILL at random moments of random phases, during learning and predictions.

    python -m benchmarks kills [--kills 200] [--minutes 60] [--longest 8] [--seed 0] [--out results.jsonl]

Real processes over one folder: a Redis, two workers and a service, each restarted at once when it is killed. One client
creates model after model and learns three tasks of two digits with each; another predicts with an undisturbed model all
the time. Afterwards every accepted job must have succeeded exactly once, every log must be without gaps, every
certificate must hold, every answer must have had the right bytes, and every model must consist of the same bytes as the
undisturbed one; and a sweep must leave nothing that is not needed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.drills.record import parser, record
from testing.drills.killing import KINDS, Killer, Workload, faults, run_during
from testing.processes.supervised import supervised


def run(kills: int, minutes: float, longest: float, seed: int) -> dict[str, Any]:
    """Run the drill; returns its figures, of which `faults` lists the violated invariants."""
    with (
        tempfile.TemporaryDirectory() as folder,
        supervised(Path(folder), workers=2, ENGRAM_MAX_ATTEMPTS="100") as (parts, vault),
    ):
        workload = Workload.prepare(parts, vault)
        killer = Killer(parts, vault, random.Random(seed), longest, lambda text: print(text, file=sys.stderr))
        order = killer.random.choices(KINDS, k=kills)
        began = time.monotonic()
        run_during(workload, lambda: killer.kill_all(order, minutes * 60))
        elapsed = time.monotonic() - began
        jobs = [vault.jobs.get(job) for accepted in workload.models.values() for job in accepted.values()]
        uploads = len(vault.objects.list("data"))
        found = faults(vault, workload)
        workload.client.close()
        if found:
            print(parts.log, file=sys.stderr)
    return {
        "kills": killer.kinds.total(),
        "seconds": round(elapsed, 1),
        "kinds": dict(killer.kinds),
        "phases_when_killed": dict(killer.phases),
        "models": len(workload.models),
        "jobs_accepted": len(jobs),
        "jobs_succeeded": sum(job.state == "succeeded" for job in jobs),
        "attempts": sum(job.attempts for job in jobs),
        "most_attempts": max(job.attempts for job in jobs),
        "predictions": workload.predictions,
        "predictions_wrong": len(workload.wrong),
        "connections_broken": workload.client.broken,
        "told_to_come_again": workload.client.unavailable,
        "uploads_left_to_the_sweep": uploads,
        "faults": found,
    }


def main() -> int:
    options = parser("kills", "SIGKILL at random moments")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--longest", type=float, default=8.0, help="seconds at most to wait for a phase")
    options.add_argument("--minutes", type=float, default=60.0, help="after which nothing more is killed")
    args = options.parse_args()
    figures = run(args.kills, args.minutes, args.longest, args.seed)
    record("kills", {"seed": args.seed, **figures}, args.out)
    return 1 if figures["faults"] else 0
