"""Processor time and memory of servers with all their processes, from /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from testing.processes.processes import children

QUIET_SECONDS = 0.1
QUIET_SHARE = 0.2
"""Of a processor, that servers without requests may take."""

_TICK = os.sysconf("SC_CLK_TCK")
_ENDED = (FileNotFoundError, ProcessLookupError)


def family(roots: Iterable[int]) -> list[int]:
    """The processes and all their descendants."""
    return [pid for root in roots for pid in (root, *children(root))]


def processor_seconds(pids: Iterable[int]) -> float:
    """Seconds that processes that still run have computed, in user and kernel mode."""
    found = 0
    for pid in pids:
        with suppress(*_ENDED):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found += int(fields[11]) + int(fields[12])
    return found / _TICK


def machine_seconds() -> float:
    """Seconds that all processors of the machine have computed for anybody, or were taken away by its host."""
    fields = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _, _, interrupts, soft, stolen = fields[:8]
    return (user + nice + system + interrupts + soft + stolen) / _TICK


def proportional_bytes(pids: Iterable[int]) -> int:
    """Memory of processes; what several processes of the machine share counts in parts (PSS)."""
    found = 0
    for pid in pids:
        with suppress(*_ENDED):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            found += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return found


def settle(pids: Sequence[int], seconds: float = 10.0) -> None:
    """Wait until processes have done what a client asked for that went away, but no longer than so many seconds."""
    deadline, before = time.monotonic() + seconds, processor_seconds(pids)
    while time.monotonic() < deadline:
        time.sleep(QUIET_SECONDS)
        now = processor_seconds(pids)
        if now - before <= QUIET_SHARE * QUIET_SECONDS:
            return
        before = now
