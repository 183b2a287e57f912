"""HTTP connections with limits on headers, on silence and on slow readers.

uvicorn bounds neither the size nor the duration of a request's headers, waits without end for a client that does not
read, and refuses what is too much in plain text.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors.exceptions import Overloaded
from service.errors.problem_details import (
    MEDIA_TYPE,
    PROTOCOL_MEDIA_TYPE,
    in_protocol,
    problem,
    protocol_error,
    response,
)
from service.middleware.cross_origin import readable
from service.middleware.forwarding import below
from service.middleware.request_log import PROBES
from service.server.connection_states import Asked
from service.server.joined_writes import JoinedWrites
from service.server.receiver import GuardedConnection
from service.settings import ServiceSettings

_LINGER_SECONDS = 2.0
"""How long a refused client's further bytes are read and discarded, so that it comes to read the refusal."""
_LEAVE_SECONDS = 0.5
"""How long an idle connection is kept once the process is to stop: a request may be on its way."""
_PIPELINED = 16
"""Requests that may wait behind the one that is answered."""


class GivenUp(Exception):
    """Error raised into the parser, which ends the connection with its problem document."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


@dataclass(frozen=True)
class ConnectionLimits:
    """Settings and callbacks that all connections of a server have in common."""

    settings: ServiceSettings
    leaving: Callable[[], bool]
    """Whether connections are to be closed with their next answer."""
    refused: Callable[[], None]
    """Called for each request that is refused since there are too many connections."""


def bounded(limits: ConnectionLimits) -> type[Connection]:
    """The class of a server's connections, with its limits."""
    return type("BoundedConnection", (Connection,), {"limits": limits})


class Connection(HttpToolsProtocol):
    """uvicorn's connection with bounds; made by `bounded`."""

    limits: ClassVar[ConnectionLimits]
    guarded: GuardedConnection | None = None
    """Where another process ends the connection if this one dies."""
    shed = False
    """Whether it is closed with its next answer, though the process goes on."""
    _read = 0
    """Bytes that came from the client."""
    _asked = Asked.NOTHING
    """What was noted last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        self._joined = JoinedWrites(transport, self.loop, self._note_sending)
        super().connection_made(cast(asyncio.Transport, self._joined))
        self._settings = self.limits.settings
        self.url = b""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._in_headers = False
        self._in_body = False
        self._header_bytes = 0
        self._discarding = False
        self._stopping = False
        most = self._settings.max_connections
        self._surplus = len(self.connections) > most and not self._displace()
        if len(self.connections) > 2 * most:
            transport.abort()
        else:
            self._watch(self._settings.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        guarded, self.guarded = self.guarded, None  # its place may be another connection's at once
        if guarded is not None:
            guarded.end()
        self._unset_keepalive_if_required()
        self._unwatch()
        self._stop_writing_timer()

    def eof_received(self) -> None:
        # The transport closes itself after this.
        self._joined.flush()
        super().eof_received()

    @property
    def idle(self) -> bool:
        """Whether it was answered and asks for nothing at present."""
        return self.cycle is not None and not (self._busy or self._in_headers or self._in_body)

    @property
    def _busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _spoken(self) -> bool:
        """Whether a path of the Open Inference Protocol was named, as far as it has come."""
        return in_protocol(below(self._settings.root_path, self.url.partition(b"?")[0].decode("latin-1")))

    def _note(self, asked: Asked) -> None:
        if self.guarded is not None:
            self._asked = asked
            self.guarded.note(asked, self._read, self._joined.written)

    def _note_sending(self, count: int) -> None:
        """Note that an answer will be whole with so many bytes more, where nothing else was asked for yet."""
        cycle, written = self.cycle, self._joined.written
        if self.guarded is None or cycle is None or self.pipeline or self._in_headers or self._in_body:
            return
        whole = cycle.response_started and not cycle.chunked_encoding and cycle.expected_content_length == 0
        if cycle.keep_alive and (whole or cycle.response_complete):
            self.guarded.note(self._asked, self._read, written, written + count)

    def _displace(self) -> bool:
        """Close one idle connection for this one; whether there was any."""
        for other in self.connections:
            if isinstance(other, Connection) and other.idle and not other.transport.is_closing():
                other.transport.close()
                return True
        return False

    # What comes in

    def data_received(self, data: bytes) -> None:
        self._read += len(data)
        if self._discarding:
            return
        if not self._in_body and self._timer is None:
            self._watch(self._settings.header_seconds)
        only_headers = self._in_headers
        super().data_received(data)
        if only_headers and self._in_headers:
            self._bound_headers(len(data))

    def _bound_headers(self, more: int) -> None:
        """Count header bytes that are not a whole header yet; the parser keeps them."""
        self._header_bytes += more
        if self._header_bytes > self._settings.max_header_bytes:
            self._give_up(self._headers_too_large())

    def _headers_too_large(self) -> dict[str, Any]:
        return problem(431, "headers_too_large", f"The headers have more than {self._settings.max_header_bytes} bytes.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._note(Asked.ANSWER)
        self._in_headers = True
        self._header_bytes = 0
        if self._timer is None:
            self._watch(self._settings.header_seconds)

    def on_headers_complete(self) -> None:
        self._unwatch()
        if self.guarded is not None and self._spoken:
            self._note(Asked.PROTOCOL_ANSWER)
        self._in_headers, self._in_body = False, True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self._settings.max_header_bytes:
            raise GivenUp(self._headers_too_large())
        if len(self.pipeline) >= _PIPELINED:
            raise GivenUp(problem(400, "bad_request", f"More than {_PIPELINED} requests at once on one connection."))
        self._surplus = self._surplus and len(self.connections) > self._settings.max_connections
        self.app = self._health_alone if self._surplus else self.config.loaded_app
        super().on_headers_complete()
        if self._stopping or self.shed or self.limits.leaving():
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        if not self._busy:  # it was answered before it had ended
            self._watch(self._settings.header_seconds)

    async def _health_alone(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = below(self._settings.root_path, scope["path"])
        if path in PROBES:
            app: Any = self.config.loaded_app
            await app(scope, receive, send)
            return
        self.limits.refused()
        full = Overloaded(f"{len(self.connections)} connections are open.", self._settings.retry_after_seconds)
        await readable(response(full), self._settings)({**scope, "path": path}, receive, send)

    # What goes out

    def on_response_complete(self) -> None:
        super().on_response_complete()
        more = self._busy or self._in_headers or self._in_body
        self._note(Asked.ANSWER if more else Asked.NOTHING)
        if self._in_headers:  # the next request has begun, which has a time limit of its own
            self._unset_keepalive_if_required()
        if self._in_body and not self._busy:
            self._watch(self._settings.header_seconds)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._writing = self.loop.call_later(self._settings.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_writing_timer()

    def _stop_writing_timer(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    # The end

    def send_400_response(self, msg: str) -> None:
        """End the connection; uvicorn calls this where it has caught the parser's error."""
        cause = getattr(sys.exception(), "__context__", None)
        self._give_up(cause.problem if isinstance(cause, GivenUp) else problem(400, "bad_request", "This is not HTTP."))

    def _give_up(self, why: dict[str, Any]) -> None:
        """Answer with a problem document, and close once the client has read it."""
        if self._busy:  # an earlier request's answer is on its way, into which nothing may be written
            self.transport.close()
            return
        spoken = self._spoken
        body = json.dumps(protocol_error(why) if spoken else why).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", (PROTOCOL_MEDIA_TYPE if spoken else MEDIA_TYPE).encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = [
            STATUS_LINE[why["status"]],
            *(name + b": " + value + b"\r\n" for name, value in headers),
            b"\r\n",
            body,
        ]
        self.transport.write(b"".join(lines))
        self.transport.write_eof()
        self._discarding = True
        self._watch(_LINGER_SECONDS)

    def shutdown(self) -> None:
        if self._busy:
            super().shutdown()
            return
        self._stopping = True
        if not self._in_headers:
            self._watch(_LEAVE_SECONDS)

    def _watch(self, seconds: float) -> None:
        self._unwatch()
        self._timer = self.loop.call_later(seconds, self._late)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._discarding:
            self.transport.abort()
        elif self._busy:
            self._watch(self._settings.header_seconds)
        elif self._in_headers:
            seconds = self._settings.header_seconds
            self._give_up(problem(408, "request_timeout", f"The headers did not end within {seconds:g} seconds."))
        else:
            self.transport.close()
