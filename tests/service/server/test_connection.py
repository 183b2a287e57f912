"""Tests of connections that are slow, silent or too many."""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.server.connection_states import Asked, ConnectionState, ConnectionStates
from service.server.receiver import GuardedConnection
from service.server.server import Server
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL, submit
from testing.servers.service import PATIENCE, Service, running, wait_until

PREDICT = f"/v1/models/{MODEL}/predict"
PNG = {"Content-Type": "image/png"}


@pytest.fixture
def strict(learned_settings: ServiceSettings, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service with small limits, and with short time limits only for what the test says (`impatient`)."""
    changes = {
        "max_connections": 6,
        "max_header_bytes": 4096,
        "header_seconds": PATIENCE,
        "keep_alive_seconds": round(PATIENCE),
        "slow_body_seconds": PATIENCE,
        "slow_body_bytes": 1000,
        "write_seconds": PATIENCE,
        "event_clients": 3,
        "event_clients_per_job": 2,
    }
    with running(learned_settings.model_copy(update=changes | getattr(request, "param", {}))) as service:
        yield service


def impatient(**changes: float) -> pytest.MarkDecorator:
    """These are the settings of `strict`; every other thing may take as long as it takes on a busy machine."""
    return pytest.mark.parametrize("strict", [changes], indirect=True, ids=[""])


class Raw:
    """A client that does what it likes."""

    def __init__(self, service: Service, receive_buffer: int | None = None) -> None:
        url = httpx.URL(service.url)
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect((url.host, url.port))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, text: str | bytes) -> None:
        self.socket.sendall(text.encode() if isinstance(text, str) else text)

    def try_to_send(self, data: bytes) -> bool:
        """Send as much as is taken; whether the connection is still there."""
        try:
            self.socket.send(data)
        except TimeoutError:
            return True
        except OSError:
            return False
        return True

    def drip(self, text: bytes) -> None:
        """Send it again and again, slowly, until an answer comes or the connection is gone."""
        with suppress(OSError):
            while not select.select([self.socket], [], [], 0.05)[0]:
                self.socket.sendall(text)

    def all(self) -> bytes:
        """Everything until the service closes the connection."""
        found = b""
        while True:
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return found
            if not more:
                return found
            found += more

    def problem(self) -> dict[str, Any]:
        """The one answer that comes, a problem document."""
        head, _, body = self.all().partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        assert "content-type: application/problem+json" in lines
        found: dict[str, Any] = json.loads(body)
        assert int(lines[0].split()[1]) == found["status"]
        return found


def answers(service: Service) -> bool:
    """Whether the service answers somebody else, on a connection of its own."""
    try:
        answer = httpx.post(service.url + PREDICT, content=png(0, 1), headers=PNG, timeout=PATIENCE)
    except httpx.TransportError:  # impatient as it may be, it did not wait for this one either
        return False
    return answer.status_code == 200


@impatient(header_seconds=2.0)
def test_headers_that_come_drop_by_drop(strict: Service) -> None:
    with Raw(strict) as slow:
        began = time.monotonic()
        slow.send(f"GET {PREDICT} HTTP/1.1\r\nX: ")
        wait_until(lambda: answers(strict))
        slow.drip(b"x")
        assert slow.problem()["code"] == "request_timeout"
        assert time.monotonic() - began > 1.9


@impatient(header_seconds=2.0)
def test_headers_of_a_later_request_that_do_not_end(strict: Service) -> None:
    with Raw(strict) as slow:
        slow.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\nGET /livez HT")
        assert slow.all().count(b"HTTP/1.1 408") == 1


@pytest.mark.parametrize("sent", ["", "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n"])
@impatient(header_seconds=1.0, keep_alive_seconds=1)
def test_silent_connections_are_closed(strict: Service, sent: str) -> None:
    with Raw(strict) as silent:
        silent.send(sent)
        silent.all()
        wait_until(lambda: not open_connections(strict))


@pytest.mark.parametrize("endless", [b"GET /" + b"x" * 400_000, b"GET / HTTP/1.1\r\nX: " + b"x" * 400_000])
def test_headers_without_end(strict: Service, endless: bytes) -> None:
    with Raw(strict) as greedy:
        try:
            greedy.send(endless)
        except OSError:
            return  # cut off while it was still sending
        assert greedy.problem()["code"] == "headers_too_large"
    assert answers(strict)


def test_headers_that_are_whole_and_too_large(strict: Service) -> None:
    with Raw(strict) as greedy:
        greedy.send("GET / HTTP/1.1\r\nHost: x\r\nX: " + "x" * 5000 + "\r\n\r\n")
        assert greedy.problem()["status"] == 431


def test_what_is_not_http(strict: Service) -> None:
    with Raw(strict) as other:
        other.send("Dear Sir or Madam,\r\n\r\n")
        assert other.problem()["code"] == "bad_request"


def test_requests_that_pile_up_on_one_connection(strict: Service) -> None:
    with Raw(strict) as eager:
        with suppress(OSError):  # cut off while it was still sending
            eager.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        assert eager.all().count(b"200 OK") < 1000
    assert answers(strict)


@impatient(slow_body_seconds=0.5, header_seconds=2.0)
def test_a_body_that_comes_too_slowly(strict: Service) -> None:
    with Raw(strict) as slow:
        slow.send(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 4000\r\n\r\n")
        slow.drip(b"x")
        wait_until(lambda: answers(strict))
        assert slow.problem()["code"] == "request_timeout"
    described = httpx.get(strict.url + "/openapi.json", timeout=PATIENCE).json()["paths"]
    for path, method in (("predict", "post"), ("tasks", "post"), ("novelty", "get")):
        assert ("408" in described[f"/v1/models/{{model}}/{path}"][method]["responses"]) == (method == "post")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (PREDICT, "image/png"),
        (PREDICT, "multipart/form-data; boundary=b"),
        (PREDICT.replace("predict", "tasks"), "multipart/form-data; boundary=b"),
        ("/v1/models", "application/json"),
    ],
)
def test_a_client_that_leaves_in_the_middle_is_no_failure(
    strict: Service, path: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Raw(strict) as gone:
        gone.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 4000\r\n\r\n--b\r\n")
        time.sleep(0.1)
    wait_until(lambda: not open_connections(strict))
    assert answers(strict)

    def counted(status: str) -> list[str]:
        name = "engram_http_request_duration_seconds_count"
        lines = strict.client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith(name) and f'status="{status}' in line]

    wait_until(lambda: counted("400") or counted("5"))
    assert not counted("5")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@impatient(slow_body_seconds=3.0, slow_body_bytes=100)
def test_a_body_that_comes_fast_enough(strict: Service) -> None:
    body = png(0, 1) + bytes(4000)
    began = time.monotonic()
    with Raw(strict) as steady:
        steady.send(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n")
        steady.send(f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n")
        for start in range(0, len(body), 400):
            steady.send(body[start : start + 400])
            time.sleep(0.3)
        assert time.monotonic() - began > 3
        assert steady.all().startswith(b"HTTP/1.1 200")


@impatient(header_seconds=1.0)
def test_a_body_that_goes_on_after_the_answer(strict: Service) -> None:
    with Raw(strict) as stubborn:
        began = time.monotonic()
        stubborn.send("POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        wait_until(lambda: not stubborn.try_to_send(b"x"))
        assert time.monotonic() - began > 0.9
    wait_until(lambda: not open_connections(strict))


@impatient(write_seconds=1.0)
def test_a_client_that_does_not_read(strict: Service) -> None:
    with Raw(strict, receive_buffer=4096) as deaf:
        deaf.socket.settimeout(0.2)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        wait_until(lambda: not deaf.try_to_send(request))
        wait_until(lambda: answers(strict))
    wait_until(lambda: not open_connections(strict))


@impatient(write_seconds=1.0)
def test_a_follower_that_does_not_read(strict: Service) -> None:
    job = submit(strict.vault, "high", (8, 9)).id
    for number in range(6000):
        strict.vault.events.publish(job, {"phase": "training", "fraction": 0.0, "text": "x" * 1000, "n": number})
    with Raw(strict, receive_buffer=4096) as deaf:
        deaf.send(f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\n\r\n")
        begin = b"HTTP/1.1 200"
        assert deaf.socket.recv(len(begin), socket.MSG_WAITALL) == begin
        wait_until(lambda: strict.runtime.streams.open == 0)
        wait_until(lambda: answers(strict))


def test_too_many_connections_are_told_so_and_health_is_not(strict: Service) -> None:
    wait_until(lambda: strict.client.get("/readyz").status_code == 200)
    with ExitStack() as crowd:
        strict.client.close()
        for _ in range(6):
            crowd.enter_context(Raw(strict)).send("GET /")
        wait_until(lambda: len(open_connections(strict)) == 6)
        refused = httpx.post(strict.url + PREDICT, content=png(0, 1), headers=PNG, timeout=PATIENCE)
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        for path in ("/livez", "/readyz", "/metrics"):
            assert httpx.get(strict.url + path, timeout=PATIENCE).status_code == 200
        crowd.close()
        wait_until(lambda: answers(strict))


def test_a_connection_that_is_being_accepted_as_a_service_stops_is_ended(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve = Server._serve_accepted

    async def slowly(self: Server, connection: socket.socket, guarded: GuardedConnection | None) -> None:
        await asyncio.sleep(0.5)
        await serve(self, connection, guarded)

    monkeypatch.setattr(Server, "_serve_accepted", slowly)
    with Raw(strict) as silent:
        wait_until(lambda: strict.server._taking)
        strict.server.should_exit = True
        silent.socket.settimeout(15)  # `grace_seconds` are 20
        assert silent.socket.recv(1) == b""


def test_an_answer_is_noted_before_and_after_it_is_sent(
    strict: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that it is told from the bytes that were sent whether a process that died has answered."""
    serve, noted = Server._serve_accepted, list[ConnectionState]()

    class Recording(ConnectionStates):
        def note(self, place: int, asked: Asked, read: int, written: int, whole: int = 0) -> None:
            super().note(place, asked, read, written, whole)
            noted.append(self.at(place))

    states = Recording.create(tmp_path / "states", 1)

    async def guarding(self: Server, connection: socket.socket, guarded: GuardedConnection | None) -> None:
        await serve(self, connection, GuardedConnection(states, 0, lambda place: None))

    monkeypatch.setattr(Server, "_serve_accepted", guarding)
    request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    with Raw(strict) as client:
        for number in (1, 2):
            noted.clear()
            client.send(request)
            wait_until(lambda: bool(noted) and noted[-1].asked == Asked.NOTHING)
            read, before, after = number * len(request), noted[0].written, noted[-1].written
            assert after > before, "there is an answer"
            assert noted == [
                ConnectionState(Asked.ANSWER, read, before, 0),
                ConnectionState(Asked.ANSWER, read, before, after),
                ConnectionState(Asked.NOTHING, read, after, 0),
            ]
        noted.clear()
        client.send(request + request)
        wait_until(lambda: bool(noted) and noted[-1].asked == Asked.NOTHING)
        assert [bool(state.whole) for state in noted] == [False, False, False, True, False], "the second alone is last"
        noted.clear()
        client.send(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        wait_until(lambda: bool(noted) and noted[-1].asked == Asked.NOTHING)
        assert not any(state.whole for state in noted), "nobody goes on with a connection that is closed"


def test_an_idle_connection_makes_way(strict: Service) -> None:
    with ExitStack() as crowd:
        for _ in range(5):
            crowd.enter_context(Raw(strict)).send("GET /")
        assert strict.client.get("/livez").status_code == 200
        wait_until(lambda: len(open_connections(strict)) == 6)
        assert answers(strict)


def test_far_too_many_connections_are_closed(strict: Service) -> None:
    with ExitStack() as crowd:
        for _ in range(12):
            crowd.enter_context(Raw(strict)).send("GET /")
        wait_until(lambda: len(open_connections(strict)) >= 12)
        assert crowd.enter_context(Raw(strict)).all() == b""


def test_more_followers_than_there_is_room_for(strict: Service) -> None:
    one, other = (submit(strict.vault, task, digits).id for task, digits in (("high", (8, 9)), ("odd", (6, 7))))
    with ExitStack() as crowd:

        def follow(job: str) -> httpx.Response:
            return crowd.enter_context(httpx.stream("GET", f"{strict.url}/v1/jobs/{job}/events", timeout=PATIENCE))

        assert [follow(one).status_code for _ in range(2)] == [200, 200]
        refused = follow(one)
        assert (refused.status_code, json.loads(refused.read())["code"]) == (503, "overloaded")
        assert refused.headers["Retry-After"] == "1"
        assert [follow(other).status_code for _ in range(2)] == [200, 503]
    wait_until(lambda: strict.runtime.streams.open == 0)


def open_connections(service: Service) -> list[object]:
    """The connections that the server holds."""
    return list(service.server.server_state.connections)
