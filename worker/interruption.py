"""Whether a job should go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Interrupted(Exception):
    """The worker was told to stop, or another one took over; the job stays open and is resumed."""


class Interruption:
    """Asked in every step: did the worker get the signal to stop, was the lease lost, is the job to be cancelled?

    Parameters
    ----------
    stop
        Set when the worker is to stop or has lost its lease.
    cancel_requested
        Whether the job's cancelling was asked for; reads the store, hence at most every `seconds`.
    """

    def __init__(self, stop: Callable[[], bool], cancel_requested: Callable[[], bool], seconds: float) -> None:
        self._stop = stop
        self._cancel_requested = cancel_requested
        self._seconds = seconds
        self._next = 0.0
        self._lock = threading.Lock()
        self.cancelled = False

    def __call__(self) -> bool:
        """Whether to end now."""
        return self.cancelled or self._stop() or self._look()

    @property
    def stopped(self) -> bool:
        """Whether it is the worker that ends, and not the job."""
        return self._stop()

    def _look(self) -> bool:
        with self._lock:
            now = time.monotonic()
            if now >= self._next:
                self.cancelled = self._cancel_requested()
                self._next = time.monotonic() + self._seconds
            return self.cancelled
