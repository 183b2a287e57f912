"""Drill of SIGKILL of single processes of a service under load: what their clients are told.

    python -m benchmarks process_kills [--kills 20] [--processes 2] [--connections 16] [--out results.jsonl]

Clients predict on connections that they keep, and one process after another is killed, but never the first, which is
the service. No connection may break, and nobody may be told anything but an answer or a 503 that the service knows of.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.drills.record import parser, record
from service.lifecycle.tuning import TUNING
from testing.drills.process_kills import ProcessKills, kill_processes, taking
from testing.processes.processes import eventually
from testing.processes.stack import started


def faults(found: ProcessKills) -> list[str]:
    """The violated requirements."""
    wrong = sorted(set(found.failures))
    if found.told != found.counted:
        wrong.append(f"{found.told} clients were told, and {found.counted} were counted")
    return wrong


def main() -> int:
    options = parser("process_kills", "Processes of a service are killed")
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--connections", type=int, default=16)
    args = options.parse_args()
    settings = {**TUNING, "ENGRAM_PROCESSES": str(args.processes)}
    with tempfile.TemporaryDirectory() as folder, started(Path(folder), replicas=1, **settings) as stack:
        stack.create("digits")
        stack.learn("digits", "low", (0, 1))
        assert eventually(lambda: taking(stack) == args.processes, 60), "not all processes have started"
        found = kill_processes(stack, "digits", args.kills, args.connections)
    wrong = faults(found)
    figures = {**asdict(found), "failures": len(found.failures), "processes": args.processes}
    record("process_kills", {"connections": args.connections, **figures, "faults": wrong}, args.out)
    return 1 if wrong else 0
