"""Liveness of workers: a file that shows when the consumer was last heard, a watch, a check.

    engram worker --check [--seconds 30]        # or: python -m worker.liveness

It imports nothing heavy, as it is asked every few seconds.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

log = logging.getLogger("engram.worker")

SECONDS = 30.0
"""Silence of a consumer after which a check fails, unless told otherwise."""

_TICK_SECONDS = 1.0
_ASK_SECONDS = 3.0
"""Between two times that the broker is asked whether it answers at all."""
_SUFFIX = ".heard"


def folder() -> Path:
    """Where the workers of this user on this machine have their files."""
    return Path(tempfile.gettempdir()) / f"engram-workers-{os.getuid()}"


class Pulse:
    """Beats of a worker's consumer, and the file that shows the last of them to other processes.

    The file is locked as long as its process lives, and its modification time is that of the last beat. A folder that
    cannot be written to costs the check, not the work.
    """

    def __init__(self) -> None:
        self.beats = 0
        """Counted by the consumer's thread alone."""
        self._file: IO[str] | None = None
        path = folder() / f"{os.getpid()}{_SUFFIX}"
        try:
            _own(path.parent)
            self._file = path.open("w", encoding="utf-8")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(path, (0, 0))  # nothing was heard yet
        except OSError as error:
            if self._file is not None:
                self._file.close()
                self._file = None
            log.warning("no check can tell whether this worker consumes: %s cannot be written: %s", path, error)

    def beat(self) -> None:
        """Count one more beat."""
        self.beats += 1

    def show(self) -> None:
        """Let other processes see that it beats now."""
        if self._file is not None:
            with suppress(OSError):  # the check fails then, and the work goes on
                os.utime(self._file.fileno())

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            Path(self._file.name).unlink(missing_ok=True)
            self._file.close()
            self._file = None


class ConsumerWatch:
    """Thread that calls `on_deaf` once an idle worker's consumer is silent for `seconds` while others are answered.

    A consumer is answered about every second, whether there is a message or not. A worker at work takes none and need
    not be heard, and neither can one be while its broker cannot be reached. Time in which the whole process stood
    still, as on a suspended machine, does not count.

    Parameters
    ----------
    busy
        Whether the worker is at work.
    reachable
        Whether the broker answers a new connection; asked every few seconds while the consumer is silent.
    """

    def __init__(
        self,
        pulse: Pulse,
        busy: Callable[[], bool],
        reachable: Callable[[], bool],
        seconds: float,
        on_deaf: Callable[[float], None],
    ) -> None:
        self._pulse = pulse
        self._busy = busy
        self._reachable = reachable
        self._seconds = seconds
        self._on_deaf = on_deaf
        self.silent = 0.0
        """Seconds since the consumer was heard, or the worker was at work."""
        self.deaf = 0.0
        """Seconds of these, up to now, in which the broker answered others."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="consumer-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        beats, since, asked = self._pulse.beats, time.monotonic(), 0.0
        while not self._over.wait(_TICK_SECONDS):
            now = time.monotonic()
            passed, since = min(now - since, 2 * _TICK_SECONDS), now
            heard = self._pulse.beats
            if heard != beats or self._busy():
                beats, self.silent, self.deaf = heard, 0.0, 0.0
                self._pulse.show()
                continue
            self.silent += passed
            self.deaf += passed
            if self.silent > _ASK_SECONDS and now - asked > _ASK_SECONDS:
                if not self._reachable():
                    self.deaf = 0.0
                asked = since = time.monotonic()
            # A consumer that was never heard is still waiting for its first connection.
            if heard and self.deaf > self._seconds and self._reachable():
                self._on_deaf(self.deaf)
                return


def check(seconds: float = SECONDS) -> tuple[bool, list[str]]:
    """Whether there are workers of this user on this machine, each heard within `seconds`; and a line about each."""
    lines, well = [], True
    for worker, age in _ages():
        if age is None:
            lines.append(f"worker {worker}: its consumer has not been heard yet")
        else:
            lines.append(f"worker {worker}: its consumer was heard {max(0.0, age):.0f} s ago")
        well = well and age is not None and age <= seconds
    if not lines:
        return False, [f"no worker of this user runs here, as far as {folder()} tells"]
    return well, lines


def _ages() -> Iterator[tuple[str, float | None]]:
    """The process id of each worker that lives, and the seconds since it was heard; None when it never was."""
    for path in sorted(folder().glob(f"*{_SUFFIX}")):
        try:
            with path.open("r+", encoding="utf-8") as file:
                if _unlocked(file):
                    path.unlink(missing_ok=True)  # of one that was killed
                    continue
                last = os.fstat(file.fileno()).st_mtime
        except OSError:
            continue
        yield path.name.removesuffix(_SUFFIX), None if last == 0 else time.time() - last


def _unlocked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _own(path: Path) -> None:
    """Make a folder that nobody else can write to; raises OSError where it is somebody else's."""
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} is not a folder of this user alone")


def main() -> int:
    """Print a line about each worker; the exit status is 0 where there are any and all of them are heard."""
    parser = argparse.ArgumentParser(prog="engram worker --check", description="Whether the workers here consume")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="silence of a consumer that is too long")
    well, lines = check(parser.parse_args().seconds)
    print("\n".join(lines))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
