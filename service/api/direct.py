"""Routes that are answered directly, past what the framework does for routes of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.route import ScopedRoute


class DirectRoutes:
    """ASGI middleware around the framework's router, and past it where a route allows that.

    A route that `requires_scope` declares as direct is entered without dependencies being solved or answers validated,
    when its query is empty, or one that the framework has taken before. Errors are answered by the same handlers.
    Requests that are traced take the framework's way, whose spans name the route.
    """

    def __init__(self, app: ASGIApp, answering: FastAPI) -> None:
        self._app = app
        self._answering = answering
        self._routes: tuple[ScopedRoute, ...] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._found(scope) if scope["type"] == "http" and "fastapi.telemetry" not in scope else None
        if found is None:
            await self._app(scope, receive, send)
            return
        route, solved = found
        request = Request(scope, receive, send)
        try:
            response = await route.directly(request, solved)
        except Exception as error:
            handlers = self._answering.exception_handlers
            # What has no handler but that of all exceptions is answered further out.
            handler = next((handlers[kind] for kind in type(error).__mro__[:-3] if kind in handlers), None)
            if handler is None:
                raise
            answer = handler(request, error)
            response = await answer if isawaitable(answer) else answer
        await response(scope, receive, send)

    def _found(self, scope: Scope) -> tuple[ScopedRoute, Mapping[str, Any]] | None:
        """The route that a request is answered by directly, and the parameters of its query."""
        if self._routes is None:
            routes = (context.original_route for context in iter_route_contexts(self._answering.routes))
            self._routes = tuple(route for route in routes if isinstance(route, ScopedRoute) and route.direct)
        for route in self._routes:
            if (match := route.path_regex.match(scope["path"])) and scope["method"] in (route.methods or ()):
                if (solved := route.solved(scope["query_string"])) is None:
                    return None
                scope["route"], scope["path_params"] = route, match.groupdict()
                return route, solved
        return None
