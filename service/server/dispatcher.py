"""Dispatcher of a service's connections: each goes to the process that has the fewest."""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from service.metrics import Metrics
from service.server.acceptor import Acceptor
from service.server.connection_states import Asked, ConnectionStates
from service.server.orphaned_connection import Fate, Traffic, fate, tell
from service.server.receiver import CHANNEL, PLACE, STATES, Shedding, Taking

log = logging.getLogger("engram.service")

_LONGEST_MESSAGE = 2**16


@dataclass
class _Held:
    """A connection that another process serves."""

    connection: socket.socket
    before: Traffic | None


@dataclass
class _Member:
    """Another process that takes connections."""

    channel: socket.socket
    number: int | None = None
    """None until it has said so."""
    held: dict[int, _Held] = field(default_factory=dict)
    """By their places in the table of states."""


class Dispatcher:
    """What accepts the connections of a service, in its first process.

    Of each connection that another process serves the socket is held open here, so that the client is told when that
    process dies.

    Parameters
    ----------
    listening
        The socket that clients connect to.
    folder
        Where the other processes find the channel and the table of states.
    take, shed
        Serves a connection in this process; closes so many of these with their next answers.
    own
        How many this process serves.
    metrics
        Has the processes, and the requests of those that have died.
    retry_seconds
        After which clients should ask again whose request's process has died.
    """

    def __init__(
        self,
        listening: socket.socket,
        folder: Path,
        take: Taking,
        shed: Shedding,
        own: Callable[[], int],
        metrics: Metrics,
        retry_seconds: int,
    ) -> None:
        self._acceptor, self._take, self._own = Acceptor(listening, self._give), take, own
        self._shed = shed
        self._metrics, self._retry_seconds = metrics, retry_seconds
        self._states = ConnectionStates.create(folder / STATES)
        self._free = list(range(len(self._states)))
        self._members: list[_Member] = []
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.bind(str(folder / CHANNEL))
        self._channel.listen()

    def start(self) -> None:
        """Begin to accept; to be called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel, self._join)
        self._acceptor.start()

    def stop_accepting(self) -> None:
        """Leave new connections alone; those that there are go on."""
        self._acceptor.stop()

    def close(self) -> None:
        """Let go of everything; what other processes still serve is theirs alone."""
        self.stop_accepting()
        self._loop.remove_reader(self._channel)
        self._channel.close()
        for member in self._members:
            self._loop.remove_reader(member.channel)
            member.channel.close()
            for held in member.held.values():
                held.connection.close()
        self._members.clear()

    # What comes

    def _give(self, connection: socket.socket) -> None:
        """Have a connection served by the process that has the fewest."""
        ready = [member for member in self._members if member.number is not None]
        for member in sorted(ready, key=lambda one: len(one.held)):
            if len(member.held) > self._own() or not self._free:
                break
            if self._sent(member, connection):
                return
        self._take(connection, None)

    def _sent(self, member: _Member, connection: socket.socket) -> bool:
        place = self._free.pop()
        self._states.note(place, Asked.NOTHING, 0, 0)
        before = Traffic.of(connection)
        descriptors = array.array("i", [connection.fileno()])
        try:
            member.channel.sendmsg(
                [PLACE.pack(place)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)], socket.MSG_DONTWAIT
            )
        except OSError:  # it is overwhelmed, or has just died
            self._free.append(place)
            return False
        member.held[place] = _Held(connection, before)
        return True

    # The other processes

    def _join(self) -> None:
        with contextlib.suppress(BlockingIOError):
            channel, _ = self._channel.accept()
            channel.setblocking(False)
            member = _Member(channel)
            self._members.append(member)
            self._loop.add_reader(channel, self._hear, member)

    def _hear(self, member: _Member) -> None:
        """Read which connections have ended, or that the process has."""
        while True:
            try:
                said = member.channel.recv(_LONGEST_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                said = b""
            if not said:
                self._lost(member)
                return
            for (number,) in PLACE.iter_unpack(said):
                if member.number is None:
                    member.number = number
                    self._count()
                    self._balance()
                elif (held := member.held.pop(number, None)) is not None:
                    held.connection.close()
                    self._free.append(number)

    def _count(self) -> None:
        self._metrics.processes.set(1 + sum(member.number is not None for member in self._members))

    def _balance(self) -> None:
        """Have processes that serve more than their share let clients come again, so that a new one is given some."""
        ready = [member for member in self._members if member.number is not None]
        counts = [self._own(), *(len(member.held) for member in ready)]
        share = -(-sum(counts) // len(counts))
        self._shed(max(0, counts[0] - share))
        for member, count in zip(ready, counts[1:], strict=True):
            if count > share:
                with contextlib.suppress(OSError):  # it is overwhelmed, or has just died
                    member.channel.send(PLACE.pack(count - share), socket.MSG_DONTWAIT)

    def _lost(self, member: _Member) -> None:
        """End or give on what a process has left behind."""
        self._loop.remove_reader(member.channel)
        member.channel.close()
        self._members.remove(member)
        self._count()
        fates = Counter[Fate]()
        for place, held in member.held.items():
            noted = self._states.at(place)
            self._free.append(place)
            found = fate(noted, held.before, Traffic.of(held.connection))
            fates[found] += 1
            if found is Fate.GIVEN_ON and not self._acceptor.stopped:
                self._give(held.connection)
            elif found is Fate.TOLD:
                tell(held.connection, noted.asked, self._retry_seconds)
            else:
                held.connection.close()
        member.held.clear()
        if fates:
            log.warning(
                "process %s of this service left %d connections: %d given on, %d told, %d closed",
                member.number,
                fates.total(),
                *(fates[one] for one in Fate),
            )
            self._metrics.refused.labels("interrupted").inc(fates[Fate.TOLD])
