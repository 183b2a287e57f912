"""Services and workers forked from processes that have imported them, which takes milliseconds."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from service.lifecycle.processes import spawn
from service.lifecycle.tuning import TUNING
from testing.processes import zygote
from testing.processes.processes import plain_environment

PR_SET_CHILD_SUBREAPER = 36


class Forked(subprocess.Popen[bytes]):
    """A child of this process that it did not start itself; as `service.lifecycle.processes.spawn` returns it."""

    def __init__(self, args: Sequence[str], pid: int, output: int | None) -> None:
        self.args = args
        self.pid = pid
        self.returncode = None
        self.stdin = self.stderr = None
        self.stdout = None if output is None else os.fdopen(output, "rb")
        # What the class sets when it starts a process, and asks for when it waits for one.
        self._child_created = True
        self._communication_started = False
        self._input = None
        self._sigint_wait_secs = 0.25
        self._waitpid_lock = threading.Lock()


class Zygote:
    """Handle of the process that forks one program."""

    def __init__(self, program: str) -> None:
        self._lock = threading.Lock()
        self._channel, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", zygote.__file__, program, str(theirs.fileno())]
            # Not tied to this thread, as other children are: it ends when the socket does.
            self._process = subprocess.Popen(
                command,
                env=plain_environment() | TUNING,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self._end)

    def fork(
        self, words: Sequence[str], environment: Mapping[str, str], niceness: int, stdout: int, stderr: int
    ) -> int:
        """Run the program with these words; the id of its process."""
        about = {
            "words": list(words),
            "environment": dict(environment),
            "folder": str(Path.cwd()),
            "niceness": niceness,
            "parent": os.getpid(),
        }
        data = json.dumps(about).encode()
        with self._lock, _adopting():
            socket.send_fds(self._channel, [len(data).to_bytes(8, "big")], [stdout, stderr])
            self._channel.sendall(data)
            pid = self._channel.recv(8)
        assert pid, "the process that forks programs has ended"
        return int.from_bytes(pid, "big")

    def _end(self) -> None:
        self._channel.close()
        self._process.wait()


_adoption = threading.Lock()
"""One thread adopts at a time: what ends with one would end for the others, too, and they wait for good."""


@contextmanager
def _adopting() -> Iterator[None]:
    """Inside, this process becomes the parent of those below it whose own parent ends."""
    prctl = ctypes.CDLL(None).prctl
    with _adoption:
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            yield
        finally:
            prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@cache
def zygote_of(program: str) -> Zygote:
    """The process that forks this program, from now on until this process ends."""
    return Zygote(program)


def fork(
    program: str,
    words: Sequence[str],
    environment: Mapping[str, str],
    niceness: int = 0,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """As `spawn` of `python -P -m PROGRAM WORDS...`, with TUNING in the environment, in a hundredth of the time.

    Nothing is left out but the start of Python and the imports: tests of those start programs as users do.
    """
    command, environment = [sys.executable, "-P", "-m", program, *words], {**TUNING, **environment}
    if sys.platform != "linux":
        return spawn(command, environment, niceness, stdout, stderr)
    ours, theirs = os.pipe() if stdout == subprocess.PIPE else (None, os.dup(1 if stdout is None else stdout))
    errors = os.dup(2 if stderr is None else stderr)
    try:
        pid = zygote_of(program).fork(words, environment, niceness, theirs, errors)
    finally:
        os.close(theirs)
        os.close(errors)
    return Forked(command, pid, ours)


def run(
    program: str, words: Sequence[str], environment: Mapping[str, str], seconds: float = 240
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of the same command, with what it printed; raises TimeoutExpired."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = fork(program, words, environment, stdout=output.fileno(), stderr=errors.fileno())
        try:
            process.wait(seconds)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        errors.seek(0)
        printed, said = output.read().decode(), errors.read().decode()
        return subprocess.CompletedProcess(process.args, process.returncode, printed, said)
