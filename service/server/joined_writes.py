"""Transport that sends the head of an answer together with its body."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class JoinedWrites:
    """A connection's transport, of whose writes every other one waits for the next, for one turn of the event loop.

    The server writes an answer's head and its body apart; each write of its own takes a call of the system, and often a
    packet. All but `write`, `write_eof` and `close` is the transport's own.

    Parameters
    ----------
    sending
        Called with a number of bytes before they are sent.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        sending: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._sending = sending
        self._transport = transport
        self._loop = loop
        self._held: bytes | None = None
        self.written = 0
        """Bytes that were given to the transport."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send some bytes, after those that were written before."""
        held, self._held = self._held, None
        if held is None:
            self._held = data
            self._loop.call_soon(self.flush)
        else:
            self._send(held + data)

    def write_eof(self) -> None:
        """Send what waits, and that it was the last."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection once all is sent."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Send what waits."""
        held, self._held = self._held, None
        if held is not None and not self._transport.is_closing():
            self._send(held)

    def _send(self, data: bytes) -> None:
        self._sending(len(data))
        self.written += len(data)
        self._transport.write(data)
