"""Request ids, the log's line for each request, and the metric of its latency."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Iterable, MutableMapping
from typing import Any

from opentelemetry import trace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors.problem_details import REQUEST_ID_HEADER
from service.metrics import Metrics
from telemetry import logs

log = logging.getLogger("engram.service.requests")

_ID = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")
_LONGEST_NAME = 120
"""Characters that are logged of a name out of a path; such a name may be anything."""


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The `X-Request-ID` of the headers when it is well formed, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return value.decode()
    return uuid.uuid4().hex


def is_probe(scope: MutableMapping[str, Any]) -> bool:
    """Whether it is a health check or a scrape, which is neither traced nor, but for debugging, logged."""
    return scope["path"] in ("/livez", "/readyz", "/metrics")


class _Exchange:
    """What of a request was received, and of its answer sent, so far."""

    def __init__(self, receive: Receive, send: Send, identity: str) -> None:
        self.status: int | None = None
        self.received = self.sent = 0
        self._receive = receive
        self._send = send
        self._header = (REQUEST_ID_HEADER.lower().encode(), identity.encode())

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), self._header]}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)


class RequestLog:
    """ASGI middleware around all others.

    It gives each request an id, which every line of the log on its behalf has, and which goes back in `X-Request-ID`
    and in every problem document. When the answer is over it writes one line and observes the time, both under the
    template of the route. Neither the query nor a body is ever written down.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identity = request_id(scope["headers"])
        logs.begin(request_id=identity)
        exchange = _Exchange(receive, send, identity)
        trace.get_current_span().set_attribute("engram.request.id", identity)
        began = time.perf_counter()
        self._metrics.in_flight.inc()
        # What nobody catches here is answered with 500 further out.
        status = 500
        try:
            await self._app(scope, exchange.receive, exchange.send)
            status = exchange.status or 500
        except asyncio.CancelledError:
            status = exchange.status or 499
            raise
        finally:
            self._metrics.in_flight.dec()
            self._over(scope, exchange, status, time.perf_counter() - began)

    def _over(self, scope: Scope, exchange: _Exchange, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if route != "unmatched" else "any"
        self._metrics.requests.labels(method, route, str(status)).observe(seconds)
        level = logging.DEBUG if is_probe(scope) else logging.INFO
        if not log.isEnabledFor(level):
            return
        fields: dict[str, Any] = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "duration_seconds": round(seconds, 6),
            "request_bytes": exchange.received,
            "response_bytes": exchange.sent,
        }
        if (caller := scope.get("state", {}).get("caller")) is not None:
            fields["caller"] = str(caller)
        for parameter, field in (("model", "model"), ("job", "job_id")):
            if (named := scope.get("path_params", {}).get(parameter)) is not None:
                fields[field] = str(named)[:_LONGEST_NAME]
        log.log(level, "%s %s %d", scope["method"], route, status, extra=fields)
