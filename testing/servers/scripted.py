"""HTTP server that gives prepared answers, one for each request, and keeps what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class PreparedAnswer:
    """An answer; without a status the connection is closed instead."""

    status: int | None = None
    content: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    whole: bool = True
    """Whether the content is all that its length promises."""


@dataclass(frozen=True)
class ReceivedRequest:
    """What a client sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    """By names in small letters."""
    body: bytes


class ScriptedServer:
    """The server's address, the answers that are left, and the requests so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[PreparedAnswer] = []
        self.requests: list[ReceivedRequest] = []


@contextmanager
def scripted_server() -> Iterator[ScriptedServer]:
    """A server on a free port, until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        script = ScriptedServer(f"http://127.0.0.1:{server.server_port}")
        _Handler.scripts[server.server_port] = script
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    scripts: dict[int, ScriptedServer] = {}  # noqa: RUF012  # the server makes the handlers
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        assert isinstance(self.server, ThreadingHTTPServer), "no other makes handlers of this kind"
        script = self.scripts[self.server.server_port]
        headers = {name.lower(): value for name, value in self.headers.items()}
        script.requests.append(ReceivedRequest(self.command, self.path, headers, self._body(headers)))
        answer = script.answers.pop(0) if script.answers else PreparedAnswer(500, b"nothing was prepared")
        self.close_connection = True
        if answer.status is None:
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.content) + (0 if answer.whole else 1)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_DELETE = do_PATCH = _answer  # noqa: N815

    def _body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
