"""Connection that a process has left behind: what its client can still be told."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import json
import socket
import struct
import termios
from dataclasses import dataclass
from http import HTTPStatus

from service.errors.exceptions import Stopping
from service.errors.problem_details import MEDIA_TYPE, PROTOCOL_MEDIA_TYPE, describe, protocol_error
from service.server.connection_states import Asked, ConnectionState

_TRAFFIC, _PLACE = struct.Struct("=QQ"), 120
"""Of Linux's `tcp_info`: bytes that the other side has acknowledged, and bytes that came from it."""
_LENGTH = _PLACE + _TRAFFIC.size
_LINGER_SECONDS = 2.0


class Fate(enum.Enum):
    """What becomes of a connection that nobody serves any more."""

    GIVEN_ON = enum.auto()
    """Nothing was asked for, or nobody has read it yet: another process can answer as if nothing had been."""
    TOLD = enum.auto()
    """Something was asked for, and no byte of an answer was sent: the client is told that there will be none."""
    CLOSED = enum.auto()
    """An answer was begun, and nobody can end it."""


@dataclass(frozen=True)
class Traffic:
    """Bytes that a connection's processes have had from it and have given to it, as the kernel counts them."""

    read: int
    written: int

    @classmethod
    def of(cls, connection: socket.socket) -> Traffic | None:
        """As it is now; None where the kernel does not say."""
        try:
            while True:
                acknowledged, received = _counts(connection)
                unread, unsent = (_count(connection, what) for what in (termios.FIONREAD, termios.TIOCOUTQ))
                if _counts(connection) == (acknowledged, received):  # nothing came in between
                    return cls(received - unread, acknowledged + unsent)
        except (OSError, struct.error):
            return None


def _counts(connection: socket.socket) -> tuple[int, int]:
    """Bytes that were acknowledged, and that came."""
    found = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LENGTH)
    acknowledged, received = _TRAFFIC.unpack_from(found, _PLACE)
    return acknowledged, received


def _count(connection: socket.socket, what: int) -> int:
    return int.from_bytes(fcntl.ioctl(connection, what, bytes(4)), "little")


def fate(noted: ConnectionState, before: Traffic | None, now: Traffic | None) -> Fate:
    """What becomes of a connection.

    Parameters
    ----------
    noted
        By the process that served it.
    before, now
        The traffic when that process was given the connection, and after its end.
    """
    if before is None or now is None:
        return Fate.CLOSED
    written, read = now.written - before.written, now.read - before.read
    answered = noted.whole and written == noted.whole  # it died before it could note so
    if written != noted.written and not answered:
        return Fate.CLOSED
    if (answered or noted.asked == Asked.NOTHING) and read == noted.read:
        return Fate.GIVEN_ON
    return Fate.TOLD


def tell(connection: socket.socket, asked: Asked, retry_seconds: int) -> None:
    """Answer 503, and close once the client has read it; to be called in an event loop."""
    why = describe(Stopping("The process that was to answer has died. What was asked for may have been done."))
    spoken = asked == Asked.PROTOCOL_ANSWER
    body = json.dumps(protocol_error(why) if spoken else why).encode()
    head = (
        f"HTTP/1.1 {why['status']} {HTTPStatus(why['status']).phrase}\r\n"
        f"content-type: {PROTOCOL_MEDIA_TYPE if spoken else MEDIA_TYPE}\r\n"
        f"content-length: {len(body)}\r\nretry-after: {retry_seconds}\r\nconnection: close\r\n\r\n"
    )
    try:
        connection.setblocking(False)
        connection.send(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        connection.close()
        return
    loop = asyncio.get_running_loop()
    # What the client still sends is read: closed with bytes unread, a connection is reset, and its last words are lost.
    ending = loop.call_later(_LINGER_SECONDS, _end, loop, connection)
    loop.add_reader(connection, _discard, loop, connection, ending)


def _discard(loop: asyncio.AbstractEventLoop, connection: socket.socket, ending: asyncio.TimerHandle) -> None:
    try:
        more = connection.recv(2**16)
    except BlockingIOError:
        return
    except OSError:
        more = b""
    if not more:
        ending.cancel()
        _end(loop, connection)


def _end(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):
        loop.remove_reader(connection)
    connection.close()
