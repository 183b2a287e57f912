"""Drill of connections to Redis that fall silent without being closed.

    python -m benchmarks silence [--seconds 60] [--connections 16] [--out results.jsonl]

Real processes over one folder, with a proxy before a real Redis, over TCP and over a Unix socket. After the silence the
old connections go on in one round, and stay dead for ever in the next; a third has no silence at all, only connections
that are dead from one moment to the next. No prediction may fail, and a task that is submitted when the network is back
must be taken by the worker, which must not end, within 30 seconds.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.drills.record import parser, record
from service.lifecycle.tuning import TUNING
from testing.drills.silence import Silence, run_silence
from testing.processes.stack import silenceable

LONGEST = 30.0
"""Seconds from the network's return until a job must have been taken."""


def faults(found: Silence) -> list[str]:
    """The violated requirements."""
    wrong = [f"a prediction failed: {failure}" for failure in found.failures]
    if found.taken_after > LONGEST:
        wrong.append(f"the job was taken after {found.taken_after} s")
    if found.job != "succeeded":
        wrong.append(f"the job has {found.job}")
    if found.restarted:
        wrong.append("the worker ended")
    return wrong


def main() -> int:
    options = parser("silence", "the network is silent for a while")
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--connections", type=int, default=16)
    args = options.parse_args()
    rounds: dict[str, dict[str, object]] = {}
    wrong: list[str] = []
    for way in ("tcp", "unix"):
        with (
            tempfile.TemporaryDirectory() as folder,
            silenceable(Path(folder), unix=way == "unix", **TUNING) as (stack, proxy),
        ):
            for seconds, old in ((args.seconds, True), (args.seconds, False), (0.0, False)):
                found = run_silence(stack, proxy, seconds, old=old, connections=args.connections)
                wrong += faults(found)
                name = f"{way}, {seconds:.0f} s, old connections {'go on' if old else 'dead'}"
                rounds[name] = asdict(found) | {"failures": len(found.failures)}
                print(f"{name}: accepted after {found.accepted_after} s, taken after {found.taken_after} s", flush=True)
    record(
        "silence",
        {"seconds": args.seconds, "connections": args.connections, "rounds": rounds, "faults": wrong},
        args.out,
    )
    return 1 if wrong else 0
