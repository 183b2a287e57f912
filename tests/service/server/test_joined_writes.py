"""Tests of the transport that joins writes, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.server.joined_writes import JoinedWrites


class Answering(asyncio.Protocol):
    """Server's side of a connection that does what it is told once it is asked, and notes each write."""

    def __init__(self, answer: Callable[[JoinedWrites], None], written: list[bytes]) -> None:
        self._answer = answer
        self._written = written

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        send, written = transport.write, self._written

        class Noted:
            def __getattr__(self, name: str) -> object:
                return getattr(transport, name)

            def write(self, data: bytes) -> None:
                written.append(data)
                send(data)

        self._joined = JoinedWrites(Noted(), asyncio.get_running_loop())  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        self._answer(self._joined)


def exchange(answer: Callable[[JoinedWrites], None]) -> tuple[bytes, list[bytes]]:
    """What a client reads until the end, and the writes that it came in."""
    written: list[bytes] = []

    async def once() -> bytes:
        server = await asyncio.get_running_loop().create_server(lambda: Answering(answer, written), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"?")
            async with asyncio.timeout(30):
                found = await reader.read()
            writer.close()
            return found

    return asyncio.run(once()), written


def several(*parts: bytes) -> Callable[[JoinedWrites], None]:
    def answer(joined: JoinedWrites) -> None:
        for part in parts:
            joined.write(part)
        joined.close()

    return answer


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((b"head", b"body"), [b"headbody"]),
        ((b"a", b"b", b"c"), [b"ab", b"c"]),
        ((b"alone",), [b"alone"]),
        ((), []),
    ],
)
def test_all_arrives_in_order_in_half_the_writes(parts: tuple[bytes, ...], expected: list[bytes]) -> None:
    assert exchange(several(*parts)) == (b"".join(parts), expected)


def test_what_nothing_follows_is_sent_in_the_next_turn() -> None:
    def answer(joined: JoinedWrites) -> None:
        joined.write(b"first")
        asyncio.get_running_loop().call_later(0.05, several(b"second", b"third"), joined)

    assert exchange(answer) == (b"firstsecondthird", [b"first", b"secondthird"])


def test_nothing_is_lost_before_the_end_of_a_side() -> None:
    def answer(joined: JoinedWrites) -> None:
        joined.write(b"last")
        joined.write_eof()

    assert exchange(answer) == (b"last", [b"last"])
