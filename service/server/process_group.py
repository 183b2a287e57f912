"""Group of processes that serve one address together."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.lifecycle.processes import ChildProcess, ProcessSupervisor
from service.lifecycle.siblings import Siblings
from service.settings import ServiceSettings

DIVIDED = (
    "queue_images",
    "explain_queue",
    "decode_queue",
    "max_requests",
    "max_connections",
    "event_clients",
    "max_uploads",
    "max_bodies_bytes",
    "max_spool_bytes",
)
"""Settings that bound what a service holds at once, of which each process has its share."""

LONGEST_SOCKET = 100
"""Characters of a Unix socket's path; the systems end between 104 and 108."""

PATIENCE_SECONDS = 5.0
"""How long a process may take to end after the time that its requests have."""


def usual_processes() -> int:
    """Half of the processors that this process may use, from one to four: the rest is for learning and for clients."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
    return max(1, min(4, count // 2))


@dataclass(frozen=True)
class Membership:
    """Which of a group's processes this is, and where they talk to each other."""

    folder: Path
    number: int
    processes: int

    @classmethod
    def parse(cls, text: str) -> Membership:
        """As `str` writes it; raises ValueError."""
        place, _, folder = text.partition(":")
        number, _, processes = place.partition("/")
        return cls(Path(folder), int(number), int(processes))

    def __str__(self) -> str:
        return f"{self.number}/{self.processes}:{self.folder}"

    def share(self, settings: ServiceSettings) -> ServiceSettings:
        """This process's settings: bounds of the whole service are divided, and rounded up."""
        found = {name: -(-getattr(settings, name) // self.processes) for name in DIVIDED}
        return settings.model_copy(update=found)

    def siblings(self) -> Siblings:
        """The channel to the others."""
        return Siblings(self.folder, self.number) if self.processes > 1 else Siblings()


class ProcessGroup:
    """The further processes of a service, each of which is started again when it dies.

    The first process accepts all connections, and gives each to the process that has the fewest.

    Parameters
    ----------
    supervisor
        Looks after the processes.
    folder
        Where the processes have their sockets.
    address
        Host and port that all listen on.
    processes
        How many there are, with this one.
    environment
        Of the others, but for what `start` is told.
    """

    def __init__(
        self,
        supervisor: ProcessSupervisor,
        folder: Path,
        address: tuple[str, int],
        processes: int,
        environment: Mapping[str, str],
    ) -> None:
        self.own = Membership(folder, 0, processes)
        self.meeting = folder if processes > 1 else None
        """Where connections are given from one process to another; None where there is one alone."""
        self._supervisor = supervisor
        self._address = address
        self._environment = environment
        self._others = [Membership(folder, number, processes) for number in range(1, processes)]

    def start(self, settings: ServiceSettings) -> None:
        """Start the others, by the whole service's settings; to be called when this process listens."""
        host, port = self._address
        told = {**self._environment, "ENGRAM_KEYS": settings.keys, "ENGRAM_ROOT_PATH": settings.root_path}
        told.pop("ENGRAM_GRPC_PORT", None)
        if settings.grpc_port:  # which gRPC shares among processes; a free one is this process's alone
            told["ENGRAM_GRPC_PORT"] = str(settings.grpc_port)
        patience = settings.drain_seconds + settings.grace_seconds + PATIENCE_SECONDS
        for other in self._others:
            command = [sys.executable, "-P", "-m", "service", "service", "--host", host, "--port", str(port)]
            command += ["--member", str(other)]
            self._supervisor.start(ChildProcess(_name(other), command, told, patience=patience))

    def begin_to_stop(self) -> None:
        """Ask the others to stop, so that they do while this one drains."""
        for other in self._others:
            self._supervisor.ask_to_stop(_name(other))


def _name(other: Membership) -> str:
    return f"service process {other.number}"


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A private folder for sockets, in a place whose path is short enough; raises OSError."""
    for parent in (tempfile.gettempdir(), "/tmp"):
        folder = Path(tempfile.mkdtemp(prefix="engram-", dir=parent))
        try:
            if len(str(folder / "redis.sock")) < LONGEST_SOCKET:
                yield folder
                return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    raise OSError("The path of the temporary folder is too long for a socket; set TMPDIR to a shorter one.")
