"""How many requests are answered at once, and what becomes of one that outlasts the process."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors.exceptions import Overloaded, Stopping
from service.errors.problem_details import response
from service.metrics import Metrics
from service.middleware.limiter import Limiter
from service.settings import ServiceSettings

ALWAYS = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered however full it is, so that whoever watches is not misled."""


class ConcurrencyLimit:
    """ASGI middleware that lets so many requests in and refuses the others at once.

    A request that is cut off, since the process may not wait for it any longer, is told so if nothing was answered yet.
    """

    def __init__(self, app: ASGIApp, settings: ServiceSettings, metrics: Metrics) -> None:
        self._app = app
        self._room = Limiter(metrics, "requests", "requests", settings.max_requests, settings.retry_after_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        try:
            self._room.take()
        except Overloaded as error:
            await response(error)(scope, receive, send)
            return
        try:
            await _told_of_the_end(self._app, scope, receive, send)
        finally:
            self._room.give()


async def _told_of_the_end(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
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
