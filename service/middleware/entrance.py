"""Middleware around all others: everything that holds for each request, whatever its route."""

from __future__ import annotations

import asyncio
import time

from opentelemetry import trace
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors.exceptions import Overloaded, Stopping
from service.errors.problem_details import response
from service.metrics import Metrics
from service.middleware.admission import AdmissionLimits
from service.middleware.exchange import Exchange
from service.middleware.forwarding import Forwarding
from service.middleware.request_log import PROBES, RequestLog
from service.settings import ServiceSettings
from telemetry import logs


class Entrance:
    """ASGI middleware around all others, one for all that they would each wrap a request in.

    It handles requests as if no proxy were before this service; gives each an id; lets so many in at once and refuses
    the others; bounds bodies; completes the headers of answers; answers a request that is cut off, since the process
    may not wait for it any longer, if nothing was sent yet; and writes the log's line and the metric when the answer is
    over. Health checks are answered however many requests there are, so that they tell the truth under load.

    Parameters
    ----------
    limits
        Shared with others; of its own where nothing is given.
    """

    def __init__(
        self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics, limits: AdmissionLimits | None = None
    ) -> None:
        limits = limits or AdmissionLimits.of(settings, metrics)
        self._app = app
        self._in_flight = 0
        metrics.in_flight.set_function(lambda: self._in_flight)
        self._forwarding = Forwarding(settings.root_path, settings.trusted_proxies)
        self._requests = limits.requests
        self._bodies = limits.bodies
        self._log = RequestLog(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        if self._forwarding.idle:
            state["prefix"] = ""
        else:
            await self._forwarding.apply(scope)
        exchange = Exchange(scope, receive, send, self._bodies)
        logs.begin(request_id=exchange.identity)
        if (span := trace.get_current_span()).is_recording():
            span.set_attribute("engram.request.id", exchange.identity)
        began = time.perf_counter()
        self._in_flight += 1
        # What nobody catches here is answered with 500 further out.
        status = 500
        try:
            await self._let_in(scope, exchange)
            status = exchange.status or 500
        except asyncio.CancelledError:
            status = exchange.status or 499
            raise
        finally:
            self._in_flight -= 1
            exchange.close()
            self._log.write(scope, exchange, status, time.perf_counter() - began)

    async def _let_in(self, scope: Scope, exchange: Exchange) -> None:
        if scope["path"] in PROBES:
            await self._app(scope, exchange.receive, exchange.send)
            return
        try:
            self._requests.take()
        except Overloaded as error:
            await response(error)(scope, exchange.receive, exchange.send)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if exchange.status is not None:
                raise
            stopping = Stopping("The service stops before this could be answered.")
            await response(stopping)(scope, exchange.receive, exchange.send)
        finally:
            self._requests.give()
