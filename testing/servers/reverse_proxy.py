"""Reverse proxy on a free port that serves a service below a path, in a thread of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})
_BODILESS = frozenset({204, 304})


@contextmanager
def proxied(target: str, prefix: str, *, strips: bool, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of a proxy that passes what is below `prefix` on to `target`, and answers 404 to the rest.

    Parameters
    ----------
    strips
        Whether it takes the prefix off, as Traefik's StripPrefix and nginx's `proxy_pass http://host/` do.
    headers
        What it adds to each request, or sends instead of the client's own.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404, "not this service")
                return
            path = self.path.removeprefix(prefix) if strips else self.path
            given = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with httpx.Client(base_url=target, timeout=100) as client:
                try:
                    with client.stream(
                        self.command, path, content=body, headers={**given, **(headers or {})}
                    ) as answer:
                        _send(self, answer)
                except httpx.ConnectError:
                    self.send_error(502, "the service is away")
                except (httpx.HTTPError, ConnectionError):  # one of the two has gone in the middle of it
                    self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is written to standard error."""

    for method in ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"):
        setattr(Handler, f"do_{method}", Handler.pass_on)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _send(handler: BaseHTTPRequestHandler, answer: httpx.Response) -> None:
    """Send an answer as it comes."""
    handler.send_response(answer.status_code)
    for name, value in answer.headers.multi_items():
        if name.lower() not in _HOP_BY_HOP:
            handler.send_header(name, value)
    if answer.status_code in _BODILESS:
        handler.end_headers()
        return
    length = answer.headers.get("Content-Length")
    handler.send_header(*(("Content-Length", length) if length else ("Transfer-Encoding", "chunked")))
    handler.end_headers()
    if handler.command == "HEAD":
        return
    for chunk in answer.iter_raw():
        handler.wfile.write(chunk if length else b"%x\r\n%s\r\n" % (len(chunk), chunk))
    if not length:
        handler.wfile.write(b"0\r\n\r\n")
