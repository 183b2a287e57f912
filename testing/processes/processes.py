"""Inspection of processes through /proc, reserved ports, and waiting for conditions."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def children(pid: int) -> dict[int, str]:
    """All descendants of the process `pid`, with their command lines."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found: dict[int, str] = {}
    waiting = list(parents.get(pid, []))
    while waiting:
        child = waiting.pop()
        found[child] = command(child)
        waiting.extend(parents.get(child, []))
    return found


def command(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pids: Iterable[int]) -> list[int]:
    """Those of the processes that still run; zombies do not count."""
    running = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            running.append(pid)
    return running


def eventually(condition: Callable[[], object], seconds: float) -> bool:
    """Wait for a condition; returns whether it came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of this machine that no other process is given before the block ends.

    It is bound but not listened on, so that a server that asks for it by number gets it, also repeatedly.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def plain_environment() -> dict[str, str]:
    """The environment without variables of Engram, AWS and OpenTelemetry."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("ENGRAM_", "AWS_", "OTEL_"))}
