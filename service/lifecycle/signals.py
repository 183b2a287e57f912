"""SIGINT, SIGTERM and SIGHUP as an exception in the main thread."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_POLL_SECONDS = 0.2
"""How often it is asked whether a signal came that was swallowed."""

_came = False
"""Whether a signal to stop came."""
_held = 0
"""How many blocks are under way that no signal may break off."""


class Stopped(BaseException):
    """A signal to stop came; like KeyboardInterrupt, it is handled only where the process ends."""


def stop_on_signals() -> None:
    """From now on the signals raise `Stopped` in the main thread.

    While uvicorn runs it has handlers of its own, and afterwards it sends itself the signal once more. SIGHUP stays
    ignored in a process that was started so (`nohup`).
    """
    for number in SIGNALS:
        if number != signal.SIGHUP or not hangup_is_ignored():
            signal.signal(number, _note)


def hangup_is_ignored() -> bool:
    """Whether this process is to outlive its terminal, as `nohup` asks for."""
    return signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def ask_to_stop() -> None:
    """Send this process SIGTERM."""
    os.kill(os.getpid(), signal.SIGTERM)


def stop_if_asked() -> None:
    """Raise `Stopped` if a signal came, however long ago.

    To be called where the process is about to settle. Code of others that was under way when the exception was raised
    may have swallowed it: an import that tries things and catches everything, a callback of the garbage collector.
    """
    if _came:
        raise Stopped


def while_heeding(work: Callable[[], Result]) -> Result:
    """What `work` gives, or raises; `Stopped` if a signal comes first, however long the work takes.

    A handler runs when the main thread comes back to Python, and what waits for a storage or a network inside of a
    library does not. So the work is done in another thread, which is left behind by a signal: whoever handles `Stopped`
    must end the process without waiting for it.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="heeded", daemon=True).start()
    while not future.done():
        stop_if_asked()
        wait([future], _POLL_SECONDS)
    return future.result()


@contextlib.contextmanager
def undivided() -> Iterator[None]:
    """A block that no signal breaks off half done: `Stopped` is raised at its end."""
    global _held
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if not _held:
        stop_if_asked()


@contextlib.contextmanager
def undisturbed_end() -> Iterator[None]:
    """After this block, further signals do not keep what is around it from ending in order."""
    try:
        yield
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _note(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    if not _held:
        raise Stopped
