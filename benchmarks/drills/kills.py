"""SIGKILL at random moments of random phases, while tasks are learned and questions answered.

    python -m benchmarks kills [--kills 200] [--minutes 60] [--longest 8] [--seed 0] [--out results.jsonl]

Real processes over one folder: a Redis, two workers and a service, each started again at once when it is killed. One
client makes model after model and has three tasks of two digits learned by each, another asks an undisturbed model all
the time. Afterwards every accepted job must have succeeded exactly once, every log must be without gaps, every
certificate must hold, every answer must have been the right bytes, and every model must be made of the same bytes as
the undisturbed one; and a sweep must leave nothing that is not needed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.drills.record import parser, record
from testing.drills.killing import KINDS, Killer, Life, faults, live_through
from testing.processes.supervised import supervised


def run(kills: int, minutes: float, longest: float, seed: int) -> dict[str, Any]:
    """The figures; `faults` is what was not as it must be."""
    with (
        tempfile.TemporaryDirectory() as folder,
        supervised(Path(folder), workers=2, ENGRAM_MAX_ATTEMPTS="100") as (parts, vault),
    ):
        life = Life.begin(parts, vault)
        killer = Killer(parts, vault, random.Random(seed), longest, lambda text: print(text, file=sys.stderr))
        order = killer.random.choices(KINDS, k=kills)
        began = time.monotonic()
        live_through(parts, vault, life, lambda: killer.kill_all(order, minutes * 60))
        elapsed = time.monotonic() - began
        jobs = [vault.jobs.get(job) for accepted in life.models.values() for job in accepted.values()]
        uploads = len(vault.objects.list("data"))
        found = faults(vault, life)
        life.client.close()
        if found:
            print(parts.log, file=sys.stderr)
    return {
        "kills": killer.kinds.total(),
        "seconds": round(elapsed, 1),
        "kinds": dict(killer.kinds),
        "phases_when_killed": dict(killer.phases),
        "models": len(life.models),
        "jobs_accepted": len(jobs),
        "jobs_succeeded": sum(job.state == "succeeded" for job in jobs),
        "attempts": sum(job.attempts for job in jobs),
        "most_attempts": max(job.attempts for job in jobs),
        "predictions": life.predictions,
        "predictions_wrong": len(life.wrong),
        "connections_broken": life.client.broken,
        "told_to_come_again": life.client.away,
        "uploads_left_to_the_sweep": uploads,
        "faults": found,
    }


def main() -> int:
    options = parser("SIGKILL at random moments")
    options.add_argument("--kills", type=int, default=200)
    options.add_argument("--longest", type=float, default=8.0, help="seconds at most to wait for a phase")
    options.add_argument("--minutes", type=float, default=60.0, help="after which nothing more is killed")
    args = options.parse_args()
    figures = run(args.kills, args.minutes, args.longest, args.seed)
    record("kills", {"seed": args.seed, **figures}, args.out)
    return 1 if figures["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
