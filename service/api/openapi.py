"""OpenAPI document, with the problems that routes may answer with, and the page that shows it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

from anyio import to_thread
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from engram.config.options import LearnOptions
from service.api.schemas import EvaluationRequest, HeatmapResponse, ProblemDocument, TaskRequest
from service.errors.problem_details import MEDIA_TYPE, PROTOCOL_MEDIA_TYPE, in_protocol
from service.middleware.compression import compressed, is_worthwhile

VERSIONED = ("/v1/", "/v2/")
"""Beginnings of the paths that clients may rely on."""

_SCRIPTS = re.compile(rb"<script>(.*?)</script>", re.DOTALL)
_SWAGGER_UI: Mapping[str, tuple[str, str]] = {
    "docs/swagger-ui.js": ("swagger-ui-bundle.js", "text/javascript"),
    "docs/swagger-ui.css": ("swagger-ui.css", "text/css"),
}
"""Where Swagger UI's files are, what they are called in the package that brings them, and what they are."""


class ProtocolError(BaseModel):
    """What every refusal looks like below `/v2`, as the Open Inference Protocol has it."""

    error: str
    code: str
    """Stable; for programs."""
    request_id: str | None = None


_METHODS_WITH_BODY = frozenset({"POST", "PATCH", "PUT"})
_REF = "#/components/schemas/{model}"
_NAMED: tuple[type[BaseModel], ...] = (
    ProblemDocument,
    ProtocolError,
    TaskRequest,
    EvaluationRequest,
    LearnOptions,
    HeatmapResponse,
)
"""Schemas that routes name without taking or giving them by themselves."""

_DESCRIPTIONS: Mapping[int, str] = {
    400: "The body is not what its content type says.",
    401: "There is no key, or it is not valid.",
    403: "The key may not do this.",
    404: "What the path or the query names is not there.",
    408: "The body comes too slowly.",
    409: "This cannot be done as things are.",
    413: "There is too much of something.",
    415: "Bodies of this content type are not taken.",
    421: "Without a key, requests must be meant for a host of this service.",
    422: "What was sent does not fit, or has a query parameter that is not known here.",
    429: "The key has used up a limit.",
    500: "Something stored is damaged or missing; `object` names it.",
    503: "There is no room, or something that is needed cannot be reached.",
}
_HEADERS: Mapping[int, tuple[str, ...]] = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def refusals(path: str, methods: frozenset[str], *, guarded: bool) -> set[int]:
    """The statuses of problems that follow from a route's path and method."""
    found: set[int] = set()
    if guarded:
        found |= {401, 403, 421, 429, 503}
    if path.startswith(VERSIONED):
        found |= {422, 500}  # a query parameter may be unknown, and what is stored harmed
    if "{" in path:
        found.add(404)
    if methods & _METHODS_WITH_BODY:
        found |= {400, 408, 413, 415}
    return found


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A schema that is written down elsewhere in the document; one of `_NAMED`, or one that routes take or give."""
    return {"$ref": _REF.format(model=model.__name__)}


def problem_answer(status: int, path: str = "") -> dict[str, Any]:
    """A response that is a problem document, or what a path of the Open Inference Protocol has in its place."""
    headers = {name: {"required": True, "schema": {"type": "string"}} for name in _HEADERS.get(status, ())}
    media, kind = (PROTOCOL_MEDIA_TYPE, ProtocolError) if in_protocol(path) else (MEDIA_TYPE, ProblemDocument)
    return {
        "description": _DESCRIPTIONS[status],
        "content": {media: {"schema": ref(kind)}},
        **({"headers": headers} if headers else {}),
    }


def install(app: FastAPI, scopes: Callable[[], Mapping[tuple[str, str], str | None]], keys: str) -> None:
    """Add `/docs`, and have `/openapi.json` say what problems look like and which scope each operation needs.

    `keys` is the setting: whether they are `required`, `off`, or, with `auto`, perhaps.
    """
    app.add_route("/openapi.json", _document(app), include_in_schema=False)
    app.add_route("/docs", _page(app), include_in_schema=False)
    for path, (name, media) in _SWAGGER_UI.items():
        app.add_route(f"/{path}", _file(name, media), include_in_schema=False)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas = made["components"]["schemas"]
            schemas |= _schemas()
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            needed = scopes()
            for path, operations in made["paths"].items():
                for method, operation in operations.items():
                    scope = needed[method.upper(), path]
                    needs: dict[str, list[dict[str, list[str]]]] = {
                        "required": [{"key": [str(scope)]}],
                        "auto": [{"key": [str(scope)]}, {}],
                    }
                    for parameter in operation.get("parameters", ()):
                        _without_null(parameter)
                    operation["security"] = needs.get(keys, []) if scope != "anyone" else []
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI tells to


def _without_null(parameter: dict[str, Any]) -> None:
    """Take null out of the schema of a parameter: an optional one is left out of an address or a header, never null."""
    choices = [choice for choice in parameter["schema"].get("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        del parameter["schema"]["anyOf"]
        parameter["schema"] |= choices[0]


def _schemas() -> dict[str, Any]:
    """The schemas of `_NAMED`."""
    named: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in _NAMED]
    found: dict[str, Any] = models_json_schema(named, ref_template=_REF)[1]["$defs"]
    return found


def _document(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """The document, which names the path prefix that a proxy serves it below."""
    packed: dict[bytes, bytes] = {}

    async def send(request: Request) -> Response:
        prefix = getattr(request.state, "prefix", "")
        answer = JSONResponse(app.openapi() | ({"servers": [{"url": prefix}]} if prefix else {}))
        answer.headers["Vary"] = "Accept-Encoding"
        plain = bytes(answer.body)
        if not is_worthwhile(request, plain):
            return answer
        if plain not in packed:
            packed.clear()  # with another prefix it is another
            packed[plain] = compressed(plain)
        headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return Response(packed[plain], media_type=answer.media_type, headers=headers)

    return send


def _page(app: FastAPI) -> Callable[[Request], Awaitable[Response]]:
    """The Swagger page, on which only its own script and Swagger UI's may run, and which asks this service alone."""
    page = bytes(
        get_swagger_ui_html(
            # Relative addresses, which hold below any path prefix.
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/swagger-ui.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="data:,",
            swagger_ui_parameters={"validatorUrl": None},  # a service of others, by default
        ).body
    )
    digests = (base64.b64encode(hashlib.sha256(script).digest()).decode() for script in _SCRIPTS.findall(page))
    scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    return show


def _file(name: str, media: str) -> Callable[[Request], Awaitable[Response]]:
    """A route to one of Swagger UI's files, which browsers keep for an hour: it is large and rarely changes."""

    async def send(request: Request) -> Response:
        content = await to_thread.run_sync(files("fastapi_offline").joinpath("static", name).read_bytes)
        return Response(content, media_type=media, headers={"Cache-Control": "max-age=3600"})

    return send
