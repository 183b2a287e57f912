"""Proxy of an S3 server that breaks the promise to create an object only where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Flaw = Literal["ignores", "looks first", "answers 200", "refuses all", "not implemented", "read-only", "none"]
"""How a PUT with `If-None-Match` is treated: the header is left out, as many stores did; it is looked whether there is
an object, and written a moment later; a refusal is answered as a success, late; each is refused; 501; any PUT gets 403;
as it should be."""

_MOMENT = 0.1
_REFUSAL = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>on purpose</Message></Error>'
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class UnsoundS3:
    """Address of the proxy, and its flaw, which may change at any time."""

    def __init__(self, url: str, flaw: Flaw) -> None:
        self.url = url
        self.flaw = flaw
        self.written: list[str] = []
        """Paths of the PUTs that came."""


@contextmanager
def unsound_s3(upstream: str, flaw: Flaw) -> Iterator[UnsoundS3]:
    """A proxy of the sound server at the URL `upstream`, which runs until the block ends."""

    class Handler(_Handler):
        upstream_host = urlsplit(upstream).netloc

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.proxy = UnsoundS3(f"http://127.0.0.1:{server.server_address[1]}", flaw)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield Handler.proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: UnsoundS3
    upstream_host: str

    def do_GET(self) -> None:
        self._answer(*self._pass_on(self._body(), dict(self.headers)))

    do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815  # the names are the base class's

    def do_PUT(self) -> None:
        body, headers, flaw = self._body(), dict(self.headers), self.proxy.flaw
        self.proxy.written.append(self.path)
        if flaw == "read-only":
            return self._refuse(403, "AccessDenied")
        if flaw == "none" or headers.get("if-none-match") is None:
            return self._answer(*self._pass_on(body, headers))
        if flaw == "not implemented":
            return self._refuse(501, "NotImplemented")
        if flaw == "refuses all":
            return self._refuse(412, "PreconditionFailed")
        if flaw == "answers 200":
            status, told, data = self._pass_on(body, headers)
            if status != 200:
                time.sleep(_MOMENT)
                told, data = [("ETag", '"0"')], b""
            return self._answer(200, told, data)
        if flaw == "looks first":
            if self._pass_on(b"", {}, "HEAD")[0] == 200:
                return self._refuse(412, "PreconditionFailed")
            time.sleep(_MOMENT)
        return self._answer(*self._pass_on(body, {name: headers[name] for name in headers if name != "if-none-match"}))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _pass_on(
        self, body: bytes, headers: dict[str, str], method: str | None = None
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection(self.upstream_host, timeout=30)
        try:
            connection.request(method or self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, [("Content-Type", "application/xml")], _REFUSAL.format(code=code).encode())

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes) -> None:
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
                self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
