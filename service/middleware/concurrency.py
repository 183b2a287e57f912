"""Limit on concurrent requests, and the answer to those that the end of the process cuts off."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors.exceptions import Overloaded, Stopping
from service.errors.problem_details import response
from service.metrics import Metrics
from service.middleware.limiter import Limiter
from service.settings import ServiceSettings

UNLIMITED = frozenset({"/livez", "/readyz", "/metrics"})
"""Paths that are answered however many requests there are, so that health checks tell the truth under load."""


class ConcurrencyLimit:
    """ASGI middleware that lets so many requests in and refuses the others at once.

    A request that is cut off, since the process may not wait for it any longer, is answered so if nothing was sent yet.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app = app
        self._limiter = Limiter(metrics, "requests", "requests", settings.max_requests, settings.retry_after_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNLIMITED:
            await self._app(scope, receive, send)
            return
        try:
            self._limiter.take()
        except Overloaded as error:
            await response(error)(scope, receive, send)
            return
        try:
            await _answered_if_cut_off(self._app, scope, receive, send)
        finally:
            self._limiter.give()


async def _answered_if_cut_off(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    begun = False

    async def watched(message: Message) -> None:
        nonlocal begun
        begun = True
        await send(message)

    try:
        await app(scope, receive, watched)
    except asyncio.CancelledError:
        if begun:
            raise
        await response(Stopping("The service stops before this could be answered."))(scope, receive, send)
