"""Delay between the signal to stop, when readiness turns off, and the stop itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from service.lifecycle.signals import hangup_is_ignored

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Draining:
    """Signal handlers that delay the stop by `seconds`, and whether the process is about to stop (`begun`).

    The server's own signal handlers close the listening socket within a tenth of a second, before any probe could see
    `/readyz` change; so they are called `seconds` later. A second signal is passed on at once. SIGHUP, which the server
    does not know, counts as SIGTERM, unless it is ignored.
    """

    def __init__(self, seconds: float) -> None:
        self.begun = False
        self._seconds = seconds
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._before_hangup: Any = signal.SIG_DFL

    def install(self) -> None:
        """Go in front of the handlers that are there; signals reach the main thread only, elsewhere nothing is done."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                self._before[number] = handler
                signal.signal(number, self._on_signal)
        if signal.SIGTERM in self._before and not hangup_is_ignored():
            self._before_hangup = signal.signal(signal.SIGHUP, self._on_hangup)

    def uninstall(self) -> None:
        """Put the handlers back that were there; from now on the process counts as about to stop."""
        self.begun = True
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, handler)
        if signal.getsignal(signal.SIGHUP) == self._on_hangup:
            signal.signal(signal.SIGHUP, self._before_hangup)
        self._before.clear()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._on_signal(signal.SIGTERM, frame)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        handler = self._before[number]
        if self.begun:
            handler(number, frame)
            return
        self.begun = True
        timer = threading.Timer(self._seconds, handler, (number, None))
        timer.daemon = True
        timer.start()
