"""Receiver of the connections that a further process of a service is given by the first."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.server.connection_states import Asked, ConnectionStates

log = logging.getLogger("engram.service")

CHANNEL = "connections"
STATES = "states-2"
"""Of a name of its own, so that a process of another release does not misread it."""
PLACE = struct.Struct("<I")
"""Of a connection in the table. A receiver's first message is its number, its others are places of what has ended; it
is sent a place with a connection, or how many it is to let go without one."""
_PLACES_A_MESSAGE = 1024
_AGAIN_SECONDS = 0.005
_MESSAGES_AT_ONCE = 64


@dataclass(frozen=True)
class GuardedConnection:
    """A connection that another process ends if this one dies."""

    states: ConnectionStates
    place: int
    ended: Callable[[int], None]

    def note(self, asked: Asked, read: int, written: int, whole: int = 0) -> None:
        """Note what the client waits for, and how many bytes have come from it, have gone and will have gone to it."""
        self.states.note(self.place, asked, read, written, whole)

    def end(self) -> None:
        """Say that the connection has ended."""
        self.ended(self.place)


Taking = Callable[[socket.socket, GuardedConnection | None], None]
"""Begins to serve a connection."""

Shedding = Callable[[int], None]
"""Closes so many connections, each with its next answer."""


class Receiver:
    """The end of a channel that connections come through.

    Parameters
    ----------
    folder
        Where the first process has its socket and the table of states.
    number
        Of this process.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._channel: socket.socket | None = None
        self._states: ConnectionStates | None = None
        self._ended: list[int] = []
        self._sending = False

    def start(self, take: Taking, shed: Shedding) -> None:
        """Be given connections from now on; raises OSError."""
        self._states = ConnectionStates(self._folder / STATES)
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel.connect(str(self._folder / CHANNEL))
        channel.send(PLACE.pack(self._number))
        channel.setblocking(False)
        self._channel = channel
        asyncio.get_running_loop().add_reader(channel, self._receive, take, shed)

    def close(self) -> None:
        """Be given no more, and say what ended last; what is open still is left to the first process."""
        channel, self._channel = self._channel, None
        if channel is not None:
            asyncio.get_running_loop().remove_reader(channel)
            with contextlib.suppress(OSError):
                for first in range(0, len(self._ended), _PLACES_A_MESSAGE):
                    channel.send(_packed(self._ended[first : first + _PLACES_A_MESSAGE]))
            channel.close()

    def _receive(self, take: Taking, shed: Shedding) -> None:
        for _ in range(_MESSAGES_AT_ONCE):
            if self._channel is None:
                return
            try:
                data, descriptor = _received(self._channel)
            except BlockingIOError:
                return
            except OSError as error:
                log.error("the first process gives no more connections: %s", error)
                data, descriptor = b"", None
            if not data:
                self.close()
                return
            assert self._states is not None, "it has started"
            (number,) = PLACE.unpack(data)
            if descriptor is None:
                shed(number)
            else:
                take(socket.socket(fileno=descriptor), GuardedConnection(self._states, number, self._end))

    def _end(self, place: int) -> None:
        self._ended.append(place)
        if not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        while self._ended and self._channel is not None:
            try:
                self._channel.send(_packed(self._ended[:_PLACES_A_MESSAGE]))
            except BlockingIOError:
                self._sending = True
                asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self._send)
                return
            except OSError:
                return  # the first process has ended, and so will this one
            del self._ended[:_PLACES_A_MESSAGE]


def _packed(places: list[int]) -> bytes:
    return b"".join(map(PLACE.pack, places))


def _received(channel: socket.socket) -> tuple[bytes, int | None]:
    """A message and the descriptor that came with it; raises OSError."""
    descriptors = array.array("i")
    room = socket.CMSG_SPACE(descriptors.itemsize)
    data, parts, _, _ = channel.recvmsg(PLACE.size, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in parts:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: descriptors.itemsize])
    return data, descriptors[0] if descriptors else None
