"""Tests of what becomes of a connection whose process has died."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from service.server.connection_states import Asked, ConnectionState
from service.server.orphaned_connection import Fate, Traffic, fate

REQUEST, ANSWER = b"request", b"answer"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client, and the connection that it was given."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        served, _ = listening.accept()
    with client, served:
        yield client, served


def test_traffic_is_counted_on_this_side_of_the_kernel(pair: tuple[socket.socket, socket.socket]) -> None:
    client, served = pair
    assert Traffic.of(served) == Traffic(0, 0)
    client.sendall(REQUEST)
    assert served.recv(3, socket.MSG_PEEK | socket.MSG_WAITALL) == REQUEST[:3]
    assert Traffic.of(served) == Traffic(0, 0), "it came, but nobody has read it"
    assert served.recv(100) == REQUEST
    served.sendall(ANSWER)
    assert Traffic.of(served) == Traffic(len(REQUEST), len(ANSWER)), "whether or not the client has read it"
    served.setblocking(False)
    sent = served.send(bytes(2**24))
    assert sent < 2**24, "more than there is room for"
    assert Traffic.of(served) == Traffic(len(REQUEST), len(ANSWER) + sent)


@pytest.mark.parametrize(
    ("noted", "now", "expected"),
    [
        (ConnectionState(), Traffic(5, 7), Fate.GIVEN_ON),
        (ConnectionState(), Traffic(6, 7), Fate.TOLD),  # read, and the process died before it knew
        (ConnectionState(Asked.NOTHING, 10, 20), Traffic(15, 27), Fate.GIVEN_ON),
        (ConnectionState(Asked.NOTHING, 10, 20), Traffic(15, 26), Fate.CLOSED),  # the last byte was not sent
        (ConnectionState(Asked.ANSWER, 10, 20), Traffic(99, 27), Fate.TOLD),
        (ConnectionState(Asked.ANSWER, 10, 20), Traffic(99, 28), Fate.CLOSED),  # the first byte was sent
        (ConnectionState(Asked.PROTOCOL_ANSWER, 10, 20), Traffic(99, 27), Fate.TOLD),
        (ConnectionState(), None, Fate.CLOSED),
        # An answer of 8 bytes was about to be sent, and it died before it could note that it was.
        (ConnectionState(Asked.ANSWER, 10, 20, 28), Traffic(15, 27), Fate.TOLD),
        (ConnectionState(Asked.ANSWER, 10, 20, 28), Traffic(15, 31), Fate.CLOSED),
        (ConnectionState(Asked.ANSWER, 10, 20, 28), Traffic(15, 35), Fate.GIVEN_ON),
        (ConnectionState(Asked.ANSWER, 10, 20, 28), Traffic(16, 35), Fate.TOLD),  # it has read of the next request
        (ConnectionState(Asked.ANSWER, 10, 20, 28), Traffic(15, 36), Fate.CLOSED),
    ],
)
def test_fates(noted: ConnectionState, now: Traffic | None, expected: Fate) -> None:
    assert fate(noted, Traffic(5, 7), now) == expected
