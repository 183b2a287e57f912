"""Proxy of an S3 server with injected faults."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["error", "throttle", "hang", "cut", "lost", "flip"]
"""500; 503 SlowDown; no answer at all; half an answer; executed without an answer; one bit of the answer flipped."""

_BODY = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>'
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class FaultyS3:
    """Proxy that passes requests on and makes each fail with given probabilities, which may change at any time.

    Parameters
    ----------
    upstream
        URL of the sound server.
    seed
        Seed of the draws.
    """

    def __init__(self, upstream: str, seed: int = 0) -> None:
        self.chances: Mapping[Fault, float] = {}
        """Probability of each kind of fault for a request."""
        self.seen: Counter[str] = Counter()
        """Number of requests by outcome: a fault, or `passed`."""
        self._random = random.Random(seed)
        self._hangs = 0
        """How many requests for each path hang from now on, whatever the probabilities."""
        self._hung: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(urlsplit(upstream).netloc))
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that give up are expected
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """Stop, and end the requests that hang."""
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @contextmanager
    def failing(self, **chances: float) -> Iterator[None]:
        """Inside, requests fail with these probabilities."""
        before, self.chances = self.chances, chances  # type: ignore[assignment]  # keywords are the faults' names
        try:
            yield
        finally:
            self.chances = before

    @contextmanager
    def hanging(self, times: int) -> Iterator[None]:
        """Inside, the first so many requests for each path hang."""
        self._hung.clear()
        self._hangs = times
        try:
            yield
        finally:
            self._hangs = 0

    def draw(self, path: str) -> Fault | None:
        """The fault of the next request, if any."""
        with self._lock:
            if self._hung[path] < self._hangs:
                self._hung[path] += 1
                self.seen["hang"] += 1
                return "hang"
            chance = self._random.random()
            for fault, share in self.chances.items():
                chance -= share
                if chance < 0:
                    self.seen[fault] += 1
                    return fault
            self.seen["passed"] += 1
            return None

    def damaged_byte(self, size: int) -> int:
        """Position of the damaged byte in an answer of so many bytes."""
        with self._lock:
            return self._random.randrange(size)

    def hang(self) -> None:
        """Wait until the proxy is closed."""
        self._over.wait(600)

    def _handler(self, upstream: str) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(_Handler):
            faulty = proxy
            upstream_host = upstream

        return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    faulty: FaultyS3
    upstream_host: str

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faulty.draw(self.path)
        if fault == "error":
            return self._refuse(500, "InternalError")
        if fault == "throttle":
            return self._refuse(503, "SlowDown")
        if fault == "hang":
            self.faulty.hang()
            self.close_connection = True
            return None
        status, headers, data = self._pass_on(body)
        if fault == "lost":
            self.close_connection = True
            return None
        if fault == "flip" and data and self.command == "GET" and status == 200:
            damaged = bytearray(data)
            damaged[self.faulty.damaged_byte(len(data))] ^= 1
            data = bytes(damaged)
        return self._answer(status, headers, data, cut=fault == "cut")

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815  # the names are the base class's

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(self.upstream_host, timeout=30)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, [("Content-Type", "application/xml")], _BODY.format(code=code).encode())

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        length = str(len(data))
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
            elif name.lower() == "content-length" and self.command == "HEAD":
                length = value
        self.send_header("Content-Length", length)
        with suppress(OSError):
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
