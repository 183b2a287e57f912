"""SIGINT and SIGTERM as one exception that unwinds the main thread."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal to stop came; like KeyboardInterrupt, it is handled only where the process ends."""


def stop_on_signals() -> None:
    """From now on the signals raise `Stopped` in the main thread.

    While uvicorn runs it has handlers of its own, and afterwards it sends itself the signal once more.
    """
    for number in SIGNALS:
        signal.signal(number, _raise)


@contextlib.contextmanager
def undisturbed_end() -> Iterator[None]:
    """After this block, further signals do not keep what is around it from ending in order."""
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped
