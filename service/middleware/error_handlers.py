"""Exception handlers: a problem document for each error, and a line in the log where needed."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route

import engram.errors as learner
import vault.errors as store
from service.errors.exceptions import InvalidJson, InvalidRequest, Overloaded, ServiceError, UnsupportedMediaType
from service.errors.problem_details import REQUEST_ID_HEADER, answer, describe, problem, response, traceback_of
from service.errors.validation import invalid_fields, sentence
from service.middleware.response_headers import COMMON
from telemetry import logs
from telemetry.redaction import redact

log = logging.getLogger("engram.service")

_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "request_too_large",
    415: "unsupported_media_type",
}
"""Codes of the framework's own refusals, by status."""
_LONGEST_PATH = 200
"""Characters of a path that an answer repeats."""


def install(app: FastAPI) -> None:
    """Answer every failure of `app` with a problem document."""
    for root in (ServiceError, learner.EngramError, store.VaultError):
        app.add_exception_handler(root, _on_known)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_unforeseen)


async def _on_known(request: Request, error: Exception) -> JSONResponse:
    found = response(error)
    if found.status_code >= 500 and not isinstance(error, Overloaded):
        code = getattr(error, "code", "internal_error")
        about = {"code": code, "status": found.status_code}
        log.error("%s: %s", code, " ".join(str(error).split()), exc_info=traceback_of(error), extra=about)
    return found


def _is_json(media: str) -> bool:
    return media.startswith("application/") and media.removeprefix("application/").rpartition("+")[2] == "json"


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "registered for this class alone"
    errors = error.errors()
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if any(e["loc"][0] == "body" for e in errors) and not _is_json(media):
        return answer(describe(UnsupportedMediaType(f"{media or 'No content type'}: send application/json.")))
    if any(e["type"] == "json_invalid" for e in errors):
        return answer(describe(InvalidJson("The body is not JSON.")))
    if any(e["type"] == "missing" and e["loc"] == ("body",) for e in errors):
        return answer(describe(InvalidJson("There is no body.")))
    found = invalid_fields(errors)
    return answer(describe(InvalidRequest(sentence(found[0]), found)))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "registered for this class alone"
    # The framework wraps what a body's reading raised into a 400 of its own.
    if isinstance(error.__cause__, ServiceError):
        return await _on_known(request, error.__cause__)
    if error.status_code == 400 and isinstance(error.__cause__, (RecursionError, ValueError)):
        return answer(describe(InvalidJson("The body is not JSON.")))
    code = _CODES.get(error.status_code, "http_error")
    detail, headers = str(error.detail), dict(error.headers or {})
    path = request.scope["path"]
    shown = redact(path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}...")
    if error.status_code == 404:
        detail = f"There is nothing at {shown}."
    if error.status_code == 405:
        # The framework knows one route of a path only, and there may be one for each method.
        headers["Allow"] = ", ".join(_methods(request.app, path))
        detail = f"{request.method} is not allowed at {shown}; allowed: {headers['Allow']}."
    return answer(problem(error.status_code, code, detail), headers)


async def _on_disconnect(request: Request, error: Exception) -> JSONResponse:
    """An answer for the log and the metrics alone: a client that has gone does not read it."""
    log.info("the client broke off before all of its request had come")
    return answer(problem(400, "incomplete", "The request ended before all of it had come."))


async def _on_unforeseen(request: Request, error: Exception) -> JSONResponse:
    body = describe(error)
    log.error("nobody foresaw this", exc_info=error, extra={"code": body["code"], "status": 500})
    # This is answered outside of all middleware, so that nothing else adds the headers.
    identity = logs.value("request_id")
    return answer(body, COMMON | ({REQUEST_ID_HEADER: identity} if identity is not None else {}))


def _methods(app: FastAPI, path: str) -> list[str]:
    """The methods that the routes of a path take, all together."""
    return sorted(
        method
        for context in iter_route_contexts(app.routes)
        if isinstance(route := context.original_route, Route) and route.path_regex.match(path)
        for method in route.methods or ()
    )
