"""Route class of the interface: the scope that a key needs, and refusal of what a route does not have.

A query parameter or field that a route does not have is refused, since an answer without it would be one to another
question.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes, Query
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.requests import Request
from starlette.responses import Response

from service.api.openapi import VERSIONED, problem_answer, refusals
from service.auth.access import ANYONE, AccessControl
from service.errors.exceptions import InvalidJson, InvalidRequest, UnknownParameter
from service.errors.parameters import check
from service.middleware.body_limits import parse_json, read_json
from vault.keys import Scope

_DECLARATION = "engram_route"
"""Attribute of an endpoint that holds its declaration."""

_SAFE = frozenset({"GET", "HEAD"})
_MOST_QUERIES = 256
"""Queries of one route that are remembered."""
_LONGEST_QUERY = 256
"""Bytes of a query that is remembered."""
_NOTHING = frozenset({b"", b"{}", b"null"})
"""Bodies that have no field."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


def query_parameters(dependant: Dependant) -> frozenset[str]:
    """The names of the query parameters that a route takes, by itself or by what it depends on."""
    return frozenset(
        field.alias
        for field in get_flat_params(dependant)
        if isinstance(field.field_info, Query) and field.field_info.in_ is ParamTypes.query
    )


@dataclass(frozen=True)
class RouteDeclaration:
    """Declaration of an endpoint: the scope that it takes, and the refusals that it may answer with."""

    scope: Scope | Literal["anyone"]
    refusals: tuple[int, ...]
    direct: bool


def requires_scope(
    scope: Scope | Literal["anyone"], *refusals: int, direct: bool = False
) -> Callable[[Endpoint], Endpoint]:
    """Declare the scope of a route: keys with this scope or a higher one are let in, or anyone at all.

    Parameters
    ----------
    refusals
        The statuses of problems that it may answer with, besides those that follow from its path and method; see
        `service.api.openapi`.
    direct
        Whether `service.api.direct` may answer it. Its endpoint then takes `request` and `parts`, texts out of the
        path, and parameters of the query with defaults, and returns a response.
    """

    def declare(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _DECLARATION, RouteDeclaration(scope, refusals, direct))
        return endpoint

    return declare


class ScopedRoute(APIRoute):
    """Route that takes the scope of its endpoint's declaration; one without a declaration cannot be made.

    Below `/v1` and `/v2` it is not entered with query parameters either that it does not have. A dependency would come
    too late: bodies are read before dependencies are asked.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        declared = getattr(endpoint, _DECLARATION, None)
        if not isinstance(declared, RouteDeclaration):
            raise TypeError(f"The route {path} does not say whom it lets in; see service.api.route.requires_scope.")
        self.scope = declared.scope
        self.direct = declared.direct
        self._endpoint = endpoint
        self._solved: dict[bytes, dict[str, Any]] = {b"": {}}
        methods = frozenset(options.get("methods") or ())
        common = refusals(path, methods, guarded=declared.scope != ANYONE)
        problems = {status: problem_answer(status, path) for status in sorted({*common, *declared.refusals})}
        options["responses"] = problems | (options.get("responses") or {})
        super().__init__(path, self._remembering(endpoint) if declared.direct else endpoint, **options)

    def _remembering(self, endpoint: Endpoint) -> Endpoint:
        """An endpoint of which it is remembered what it was called with for which query."""

        @wraps(endpoint)
        async def remembered(request: Request, **given: Any) -> Any:
            own = {name: value for name, value in given.items() if name not in ("parts", *request.path_params)}
            if len(self._solved) >= _MOST_QUERIES:
                self._solved.clear()  # the same one, which the route that answers HEAD has as well
                self._solved[b""] = {}
            if len(request.scope["query_string"]) <= _LONGEST_QUERY:
                self._solved[request.scope["query_string"]] = own
            return await endpoint(request=request, **given)

        return cast(Endpoint, remembered)

    def solved(self, query: bytes) -> dict[str, Any] | None:
        """What the endpoint is called with for a query; None where the framework has to say."""
        return self._solved.get(query)

    async def directly(self, request: Request, solved: Mapping[str, Any]) -> Response:
        """The answer to a request whose query says what was `solved`; raises what the endpoint does."""
        runtime = request.app.state.runtime
        if self.scope != ANYONE:
            await runtime.access.admit(request, self.scope)
        response: Response = await self._endpoint(request=request, parts=runtime, **request.path_params, **solved)
        return response

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        scope = self.scope
        fits = self.body_field is not None or "requestBody" in (self.openapi_extra or {})
        parameters = query_parameters(self.dependant) if self.path.startswith(VERSIONED) else None

        async def enter(request: Request) -> Response:
            if scope != ANYONE:
                access = request.app.state.runtime.access
                assert isinstance(access, AccessControl), "the app has not started: run its lifespan"
                await access.admit(request, scope)
            if parameters is not None:
                check([name for name, _ in request.query_params.multi_items()], parameters)
                if not fits and request.method not in _SAFE:
                    await _refuse_content(request, parameters)
            return await inner(_StrictRequest(request.scope, request.receive) if self.body_field else request)

        return enter


class _StrictRequest(Request):
    """Request whose JSON gives no field twice."""

    async def json(self) -> Any:
        return await read_json(self)


async def _refuse_content(request: Request, parameters: frozenset[str]) -> None:
    """Return if there is nothing in the body of a request to a route that takes none; `{}` says nothing, either.

    Raises
    ------
    UnknownParameter, InvalidRequest
        A field in it would be ignored.
    """
    content = (await request.body()).strip()
    if content in _NOTHING:
        return
    try:
        body = parse_json(content, "The body")
    except InvalidJson:
        body = None
    if isinstance(body, dict):
        inside = next((name for name in body if name in parameters), None)
        if inside is not None:
            raise UnknownParameter(
                f"{inside} is a parameter of the query here, and no field of the body.",
                [{"loc": ["body", inside], "message": "is not known"}],
            )
        check(body, frozenset(), "field", ("body",))
    raise InvalidRequest("This route takes no body.")


class ScopedRouter(APIRouter):
    """Router of `ScopedRoute`s, whose GET routes answer HEAD as well: with the same headers, and no body.

    The server leaves the body out. The document of the interface has GET alone.
    """

    def __init__(self, tag: str) -> None:
        super().__init__(tags=[tag], route_class=ScopedRoute)

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().add_api_route(path, endpoint, **options)
        if "GET" in (options.get("methods") or ()):
            head = copy.copy(self.routes[-1])  # to make another takes a millisecond, of which there are dozens
            assert isinstance(head, ScopedRoute), "it was just added"
            head.methods, head.include_in_schema = {"HEAD"}, False
            self.routes.append(head)


def scopes(app: FastAPI) -> dict[tuple[str, str], Scope | Literal["anyone"] | None]:
    """The scope of each route of an app, by method and path; None where nothing is declared."""
    return {
        (method, str(getattr(context.original_route, "path", context.original_route))): getattr(
            context.original_route, "scope", None
        )
        for context in iter_route_contexts(app.routes)
        for method in getattr(context.original_route, "methods", None) or ["any"]
    }
