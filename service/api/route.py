"""Route class of the interface: the scope that a key needs, and refusal of unknown query parameters.

A query parameter that a route does not have is refused, since an answer without it would be one to another question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes, Query
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response

from service.api.openapi import VERSIONED, problem_answer, refusals
from service.auth.access import ANYONE, AccessControl
from service.errors.exceptions import InvalidRequest, UnknownParameter
from vault.keys import Scope

_DECLARATION = "engram_route"
"""Attribute of an endpoint that holds its declaration."""
_MOST_NAMED = 10
"""How many unknown query parameters an answer names."""
_LONGEST_NAME = 64
"""Characters of a query parameter's name that an answer repeats; a client may make up any."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def query_parameters(dependant: Dependant) -> frozenset[str]:
    """The names of the query parameters that a route takes, by itself or by what it depends on."""
    return frozenset(
        field.alias
        for field in get_flat_params(dependant)
        if isinstance(field.field_info, Query) and field.field_info.in_ is ParamTypes.query
    )


def check(given: Iterable[str], known: frozenset[str]) -> None:
    """Return if all given names are known, and given once.

    Raises
    ------
    UnknownParameter
        It names those that are not, and all that are known.
    InvalidRequest
        One is given twice.
    """
    given = list(given)
    unknown = [name[:_LONGEST_NAME] for name in dict.fromkeys(given) if name not in known][:_MOST_NAMED]
    if unknown:
        known_ones = f"known here: {', '.join(sorted(known))}" if known else "this route has none"
        raise UnknownParameter(
            f"The query parameter {unknown[0]!r} is not known; {known_ones}.",
            [{"loc": ["query", name], "message": "is not known"} for name in unknown],
        )
    twice = [name for name, times in Counter(given).items() if times > 1]
    if twice:
        raise InvalidRequest(
            f"The query parameter {twice[0]!r} is given more than once.",
            [{"loc": ["query", name], "message": "is given more than once"} for name in twice],
        )


@dataclass(frozen=True)
class RouteDeclaration:
    """Declaration of an endpoint: the scope that it takes, and the refusals that it may answer with."""

    scope: Scope | Literal["anyone"]
    refusals: tuple[int, ...]


def requires_scope(scope: Scope | Literal["anyone"], *refusals: int) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope of a route: keys with this scope or a higher one are let in, or anyone at all.

    `refusals` are the statuses of problems that it may answer with, besides those that follow from its path and
    method; see `service.api.openapi`.
    """

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARATION, RouteDeclaration(scope, refusals))
        return endpoint

    return declare


class ScopedRoute(APIRoute):
    """Route that takes the scope of its endpoint's declaration; one without a declaration cannot be made.

    Below `/v1` it is not entered with query parameters either that it does not have. A dependency would come too late:
    bodies are read before dependencies are asked.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        declared = getattr(endpoint, _DECLARATION, None)
        if not isinstance(declared, RouteDeclaration):
            raise TypeError(f"The route {path} does not say whom it lets in; see service.api.route.requires_scope.")
        self.scope = declared.scope
        methods = frozenset(options.get("methods") or ())
        common = refusals(path, methods, guarded=declared.scope != ANYONE)
        problems = {status: problem_answer(status) for status in sorted({*common, *declared.refusals})}
        options["responses"] = problems | (options.get("responses") or {})
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        scope = self.scope
        parameters = query_parameters(self.dependant) if self.path.startswith(VERSIONED) else None

        async def enter(request: Request) -> Response:
            if scope != ANYONE:
                access = request.app.state.runtime.access
                assert isinstance(access, AccessControl), "the app has not started: run its lifespan"
                await access.admit(request, scope)
            if parameters is not None:
                check([name for name, _ in request.query_params.multi_items()], parameters)
            return await inner(request)

        return enter


def scopes(app: FastAPI) -> dict[tuple[str, str], Scope | Literal["anyone"] | None]:
    """The scope of each route of an app, by method and path; None where nothing is declared."""
    return {
        (method, str(getattr(context.original_route, "path", context.original_route))): getattr(
            context.original_route, "scope", None
        )
        for context in iter_route_contexts(app.routes)
        for method in getattr(context.original_route, "methods", None) or ["any"]
    }
