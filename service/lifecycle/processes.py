"""Child processes in groups of their own, restarted when they die and ended with this one."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from service.lifecycle.signals import undivided

log = logging.getLogger("engram.service")

PR_SET_PDEATHSIG = 1
FIRST_DELAY = 0.25
LONGEST_DELAY = 10.0
STEADY_SECONDS = 30.0
"""A process that lived so long is restarted without delay when it dies."""


def _with_parent(niceness: int) -> Callable[[], None]:
    """The function that a child runs between fork and exec: it ties its life to its parent's and lowers its priority.

    Everything is looked up here, before the fork, because a forked child must not wait for locks of threads that it
    has not got. Only Linux can tie a child's life to its parent's.
    """
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    parent = os.getpid()

    def prepare() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:
                # The parent died before the line above and nobody would ever tell.
                os._exit(1)
        if niceness:
            os.nice(niceness)

    return prepare


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    niceness: int = 0,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one, even if this one is killed.

    It gets a session of its own, so that Ctrl-C in a terminal reaches this process alone, which then ends the others
    in the right order.
    """
    return subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=_with_parent(niceness),
    )


def stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask with SIGTERM, insist with SIGKILL after `seconds`."""
    if process.poll() is None:
        process.terminate()
    wait(process, seconds)


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Give a process that was asked to stop `seconds`, then insist with SIGKILL."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        log.warning("process %d did not stop within %.0f s and is killed", process.pid, seconds)
        process.kill()
        process.wait()


@dataclass
class ChildProcess:
    """A child process that is to run as long as this one does."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    niceness: int = 0
    patience: float = 5.0
    """Seconds between asking it to stop and insisting."""
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = True
    """Whether it is to be started again when it ends."""
    delay: float = field(default=FIRST_DELAY, repr=False)
    started: float = field(default=0.0, repr=False)

    def start(self) -> None:
        """Start it anew."""
        self.started = time.monotonic()
        # What it prints is for the log; standard output is this program's own.
        self.process = spawn(self.command, self.environment, self.niceness, stdout=sys.stderr.fileno())


class Misset(Exception):
    """A child that cannot run with its settings; the text is one sentence for the person who set them."""


class ProcessSupervisor:
    """Thread that restarts children that die, waiting longer each time one dies young.

    One that says its settings cannot be used would say so again: it is left alone, and `on_misset` is called.

    Linux ties a child's life to the thread that started it, so the watching thread outlives what it has restarted.
    """

    def __init__(self, on_misset: Callable[[], None]) -> None:
        self._on_misset = on_misset
        self._children: list[ChildProcess] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._misset = ""
        """Name of a child that was left alone."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self, child: ChildProcess) -> None:
        """Start `child` and keep it running; it is up, but not necessarily ready, when this returns."""
        # A signal between two of these would leave a process that nobody knows, or a lock that nobody gives back.
        with undivided():
            with self._lock:
                child.start()
                self._children.append(child)
            if not self._thread.is_alive():
                self._thread.start()

    @contextlib.contextmanager
    def sound(self) -> Iterator[None]:
        """A block that ends with Misset, whatever else it ends with, if one of the children was left alone."""
        try:
            yield
        finally:
            if self._misset:
                raise Misset(f"The {self._misset}'s settings cannot be used.")

    def ask_to_stop(self, name: str) -> None:
        """Send SIGTERM to the child of this name and do not restart it, without waiting for it to end."""
        with self._lock:
            for child in [child for child in self._children if child.name == name]:
                child.wanted = False
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()

    def stop(self) -> None:
        """Stop all children, the last one started first."""
        self._stopping.set()
        with self._lock:
            for child in reversed(self._children):
                if child.process is not None:
                    stop(child.process, child.patience)
            self._children.clear()
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.2):
            with self._lock:
                for child in self._children:
                    if not self._stopping.is_set():
                        self._look_after(child)

    def _look_after(self, child: ChildProcess) -> None:
        now = time.monotonic()
        if not child.wanted:
            return
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            child.process = None
            if code == os.EX_CONFIG:
                log.error("the %s cannot run with its settings", child.name)
                child.wanted = False
                self._misset = child.name
                self._on_misset()
                return
            if now - child.started > STEADY_SECONDS:
                child.delay = FIRST_DELAY
            log.warning("the %s ended with status %d; it is started again in %.2g s", child.name, code, child.delay)
            child.started = now
        elif now - child.started >= child.delay:
            child.delay = min(child.delay * 2, LONGEST_DELAY)
            child.start()
