"""Tests of the acceptor, over real sockets and in the event loop that serves."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest
import uvloop

from service.server import acceptor
from service.server.acceptor import Acceptor
from service.server.server import listen

CLIENTS = 16


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work()

    uvloop.run(bounded())


def connected(listening: socket.socket, opened: ExitStack, count: int = CLIENTS) -> None:
    """Clients that wait to be accepted."""
    for _ in range(count):
        opened.enter_context(socket.create_connection(listening.getsockname()))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_connections_that_come_together_are_accepted_in_one_turn_of_the_loop(opened: ExitStack) -> None:
    listening = opened.enter_context(listen("127.0.0.1", 0))
    connected(listening, opened)
    taken: list[tuple[int, socket.socket]] = []

    async def work() -> None:
        turn = 0
        accepting = Acceptor(listening, lambda connection: taken.append((turn, opened.enter_context(connection))))
        accepting.start()
        while len(taken) < CLIENTS:
            turn += 1
            await asyncio.sleep(0)
        accepting.stop()

    run(work)
    assert len({turn for turn, _ in taken}) == 1
    for _, connection in taken:
        assert not connection.getblocking()
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_nothing_is_accepted_once_it_has_stopped(opened: ExitStack) -> None:
    listening = opened.enter_context(listen("127.0.0.1", 0))
    taken: list[socket.socket] = []

    async def work() -> None:
        accepting = Acceptor(listening, lambda connection: taken.append(opened.enter_context(connection)))
        accepting.start()
        connected(listening, opened, 1)
        while not taken:
            await asyncio.sleep(0)
        accepting.stop()
        accepting.stop()
        connected(listening, opened, 1)
        await turns(50)

    run(work)
    assert len(taken) == 1


class WithoutFiles(socket.socket):
    """A listening socket that cannot open a file for its first connection."""

    failed = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_where_no_file_can_be_opened_it_pauses_and_goes_on(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_SECONDS", 0.5)

    async def work(accepting: Acceptor, taken: list[socket.socket]) -> None:
        await turns(20)
        assert not taken
        while len(taken) < CLIENTS:
            await asyncio.sleep(0.01)
        accepting.stop()

    without_files(opened, work)


def test_a_pause_ends_in_nothing_once_it_has_stopped(opened: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_PAUSE_SECONDS", 0.02)

    async def work(accepting: Acceptor, taken: list[socket.socket]) -> None:
        accepting.stop()
        await asyncio.sleep(0.1)
        assert not taken

    without_files(opened, work)


def without_files(opened: ExitStack, work: Callable[[Acceptor, list[socket.socket]], Awaitable[None]]) -> None:
    """Do something once clients have come and the first could not be accepted."""
    listening = opened.enter_context(WithoutFiles(fileno=listen("127.0.0.1", 0).detach()))
    connected(listening, opened)
    taken: list[socket.socket] = []

    async def begun() -> None:
        accepting = Acceptor(listening, lambda connection: taken.append(opened.enter_context(connection)))
        accepting.start()
        while not listening.failed:
            await asyncio.sleep(0)
        await work(accepting, taken)

    run(begun)
