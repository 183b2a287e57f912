"""Acceptor of the connections that clients open."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger("engram.service")

_ACCEPTED_AT_ONCE = 64
_PAUSE_SECONDS = 1.0
"""Without accepting, where no more files can be opened."""


class Acceptor:
    """What accepts connections in the event loop, all that wait at once.

    uvloop's own servers accept one in a turn of the loop: of some that come together, each waits until all those before
    it have been answered once more.

    Parameters
    ----------
    listening
        The socket that clients connect to; whoever made it closes it.
    take
        Serves a connection; may not block.
    """

    def __init__(self, listening: socket.socket, take: Callable[[socket.socket], None]) -> None:
        self._listening, self._take = listening, take
        self._stopped = False

    def start(self) -> None:
        """Begin to accept; to be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._accept)

    def stop(self) -> None:
        """Leave new connections alone, from now on and for good."""
        if not self._stopped:
            self._stopped = True
            self._loop.remove_reader(self._listening)

    @property
    def stopped(self) -> bool:
        return self._stopped

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted for %g s: %s", _PAUSE_SECONDS, error)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_SECONDS, self._go_on)
                return
            connection.setblocking(False)
            with suppress(OSError):  # some systems say so where it has ended again
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as a loop does of those it accepts
            self._take(connection)

    def _go_on(self) -> None:
        if not self._stopped:
            self._loop.add_reader(self._listening, self._accept)
