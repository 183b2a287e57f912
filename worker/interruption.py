"""Interruption of a job: stop of the worker, cancellation, time limit, or a changed model; SIGHUP."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, Self

from celery.bootsteps import StartStopStep

log = logging.getLogger("engram.worker")

_GRACE = 0.75
"""Seconds that the work has to notice its own end, before the watchdog declares it."""


class Interrupted(Exception):
    """The worker has to stop, or another one took over; the job stays open and is resumed."""


class ModelChanged(Exception):
    """The model got other engrams meanwhile; what was learned does not fit on top of them any more."""


@dataclass(frozen=True)
class EndReason:
    """Reason why a job is to end without a version, as its record says it."""

    code: str
    detail: str
    cancelled: bool = False


class HangUp(StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Step of a Celery worker that has SIGHUP count as SIGTERM; a worker that was started with `nohup` ignores it.

    Celery itself would start the program anew. It sets its handler right before the first step.
    """

    ignored = False
    """Whether this process is to outlive its terminal; to be set before Celery begins."""

    def start(self, parent: Any) -> None:
        """Set the handler."""
        signal.signal(signal.SIGHUP, signal.SIG_IGN if self.ignored else _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGTERM)


class Interruption:
    """Check, made in every step, whether the worker stops, has lost its lease, or the job is to end.

    Parameters
    ----------
    stop
        Whether the worker is to stop or has lost its lease.
    find_end
        Why the job is to end, or None; it reads the store, hence is asked at most every `seconds`.
    """

    def __init__(self, stop: Callable[[], bool], find_end: Callable[[], EndReason | None], seconds: float) -> None:
        self._stop = stop
        self._find_end = find_end
        self._seconds = seconds
        self._next = 0.0
        self._lock = threading.Lock()
        self.end: EndReason | None = None

    def __call__(self) -> bool:
        """Whether to end now."""
        return self.end is not None or self._stop() or self._found_end() is not None

    @property
    def stopping(self) -> bool:
        """Whether it is the worker that ends, and not the job."""
        return self._stop()

    def _found_end(self) -> EndReason | None:
        with self._lock:
            if self.end is None and time.monotonic() >= self._next:
                self.end = self._find_end()
                self._next = time.monotonic() + self._seconds
            return self.end


class Watchdog:
    """Thread that ends a job in time also where the work cannot check, such as within one large decomposition.

    When the work has not ended shortly after it was to, `declare` gives the job its result. The work finds that out at
    its next step. Once `settle` was called it is too late for that.
    """

    def __init__(self, interruption: Interruption, declare: Callable[[EndReason], object]) -> None:
        self._interruption = interruption
        self._declare = declare
        self._over = threading.Event()
        self._deciding = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()
        self._thread.join()

    def settle(self) -> None:
        """From now on the job's end is left to the work itself."""
        self._over.set()
        with self._deciding:
            pass

    def _run(self) -> None:
        while not self._over.wait(_GRACE / 3):
            if self._interruption() and (end := self._interruption.end) is not None:
                break
        else:
            return
        if self._over.wait(_GRACE):
            return
        with self._deciding:
            if not self._over.is_set():
                log.warning("the work goes on after the end of its job: %s", end.detail)
                try:
                    self._declare(end)
                except Exception:  # the work itself will declare it; this thread has nobody to tell
                    log.exception("the end of the job could not be declared")
