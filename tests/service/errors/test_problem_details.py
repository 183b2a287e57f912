"""Tests of the status, code and problem document of every error."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

import engram.errors as learner
import service.errors.exceptions as interface
import vault.errors as store
from service.errors import problem_details
from service.metrics import Metrics
from service.middleware import error_handlers
from service.middleware.entrance import Entrance
from service.settings import ServiceSettings
from testing.servers.service import Service


def lowest(kind: type[Exception]) -> Iterator[type[Exception]]:
    """The classes below `kind` that no other class is below."""
    below = kind.__subclasses__()
    for one in below:
        yield from lowest(one)
    if not below:
        yield kind


ROOTS = (learner.EngramError, store.VaultError, interface.ServiceError)
LOWEST = sorted(
    {
        one
        for root in ROOTS
        for one in lowest(root)
        if one.__module__ in ("engram.errors", "vault.errors", "service.errors.exceptions")
    },
    key=lambda one: one.__qualname__,
)


@pytest.mark.parametrize("kind", LOWEST, ids=lambda kind: kind.__name__)
def test_every_lowest_error_has_a_status_of_its_own(kind: type[Exception]) -> None:
    assert kind in problem_details.STATUS
    assert 400 <= problem_details.STATUS[kind] <= 599


def test_codes_tell_errors_apart() -> None:
    codes = {kind: kind.code for kind in LOWEST if isinstance(kind, type) and hasattr(kind, "code")}
    assert codes.keys() == set(LOWEST)
    shared = [code for code, times in Counter(codes.values()).items() if times > 1]
    assert shared == ["unsupported_format"], "what a later release wrote: the learner's files, and the vault's records"


def test_an_error_below_a_known_one_gets_its_status() -> None:
    class Odd(learner.NotAnImage):
        code = "odd"

    assert problem_details.describe(Odd("an odd one")) == {
        "type": "urn:engram:error:odd",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "an odd one",
        "code": "odd",
    }


def app_that_raises(error: Exception) -> FastAPI:
    app = FastAPI()
    error_handlers.install(app)
    small = ServiceSettings(max_request_bytes=1024, max_document_bytes=1024, max_upload_bytes=1024)
    app.add_middleware(Entrance, settings=small, metrics=Metrics())

    @app.get("/")
    def fail() -> None:
        raise error

    @app.post("/")
    def take(body: dict[str, str]) -> dict[str, str]:
        return body

    return app


def ask(app: FastAPI, method: str = "GET", path: str = "/", **options: object) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **options)  # type: ignore[arg-type]  # passed on as they are

    return asyncio.run(once())


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("secret"), learner.DamagedSnapshot("secret"), store.InvalidPath("secret")]
)
def test_what_is_not_the_clients_business_is_not_told(error: Exception) -> None:
    response = ask(app_that_raises(error))
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "secret" not in response.text
    assert response.json()["code"] == getattr(error, "code", "internal_error")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (store.Damaged("blobs/00ff", "it is not what was stored"), "damaged"),
        (store.UnsupportedRecord("blobs/00ff", "it is of format 2"), "unsupported_format"),
        (store.NotFound("There is no object blobs/00ff.", "blobs/00ff"), "not_found"),
    ],
)
def test_what_is_harmed_in_the_store_is_named(error: Exception, code: str) -> None:
    response = ask(app_that_raises(error))
    body = response.json()
    assert (response.status_code, body["code"], body["object"]) == (500, code, "blobs/00ff")
    assert body["detail"] == str(error)


@pytest.mark.parametrize(
    ("error", "code", "traced"),
    [
        (store.StoreUnavailable("The storage failed at x:\n refused"), "store_unavailable", False),
        (store.RedisUnavailable("Redis cannot be reached: refused"), "redis_unavailable", False),
        (store.Damaged("x", "refused"), "damaged", True),
        (ZeroDivisionError("refused"), "internal_error", True),
    ],
)
def test_only_what_is_unexpected_is_logged_with_a_traceback(
    error: Exception, code: str, traced: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = app_that_raises(error)
    for _ in range(2):
        ask(app)
    lines = [record for record in caplog.records if record.name == "engram.service"]
    assert [vars(line)["code"] for line in lines] == [code, code]
    for line in lines:
        assert (line.levelname, line.exc_info is not None) == ("ERROR", traced)
        assert "\n" not in line.getMessage()
        assert traced or line.getMessage().endswith("refused")


def test_when_to_try_again_is_told() -> None:
    response = ask(app_that_raises(interface.Overloaded("full", 7)))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "7")
    response = ask(app_that_raises(store.StoreUnavailable("away")))
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")


def test_a_body_that_is_too_large_is_told_so_where_the_framework_reads_it() -> None:
    response = ask(app_that_raises(ValueError()), "POST", json={"a": "long enough to be refused" * 50})
    assert (response.status_code, response.json()["code"]) == (413, "request_too_large")


def test_what_is_at_no_path_and_what_may_be_done_at_one(reader: Service) -> None:
    nowhere = reader.client.get("/v1/model%73/none/tsaks").json()
    assert nowhere["detail"] == "There is nothing at /v1/models/none/tsaks."
    refused = reader.client.put("/v1/models/none")
    assert refused.headers["Allow"] == "DELETE, GET, HEAD, PATCH"
    assert refused.json()["detail"] == "PUT is not allowed at /v1/models/none; allowed: DELETE, GET, HEAD, PATCH."
    odd = reader.client.put("/v1/models/a%3Fb")
    assert (odd.status_code, odd.headers["Allow"]) == (405, "DELETE, GET, HEAD, PATCH")
    long = reader.client.get("/" + "x" * 5000).json()["detail"]
    assert (len(long) < 250, long.endswith("x....")) == (True, True)
    key = f"engram_{'0' * 16}_{'a' * 43}"
    assert "aaaa" not in reader.client.get(f"/{key}").text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PUT", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/none", 404, "unknown_model"),
        ("GET", "/v1/models/NONE", 404, "unknown_model"),
        ("GET", "/v1/models/%2e%2e", 404, "unknown_model"),
        ("DELETE", "/v1/models/none", 404, "unknown_model"),
        ("GET", "/v1/models/none/tasks", 404, "unknown_model"),
        ("GET", "/v1/models/none/tasks/x", 404, "unknown_model"),
        ("POST", "/v1/models/none/tasks", 404, "unknown_model"),
        ("POST", "/v1/models/none/predict", 404, "unknown_model"),
        ("POST", "/v1/models/none/explain", 404, "unknown_model"),
        ("GET", "/v1/models/none/novelty", 404, "unknown_model"),
        ("GET", "/v1/models/none/versions", 404, "unknown_model"),
        ("GET", "/v1/models/none/versions/1", 404, "unknown_model"),
        ("GET", "/v1/models/none/versions/one", 422, "invalid_request"),
        ("POST", "/v1/models/none/versions/1/activate", 404, "unknown_model"),
        ("GET", "/v1/models/none/versions/1/certificate", 404, "unknown_model"),
        ("GET", "/v1/jobs/none", 404, "unknown_job"),
        ("GET", "/v1/jobs/none/events", 404, "unknown_job"),
        ("POST", "/v1/jobs/none/cancel", 404, "unknown_job"),
        ("GET", "/v1/jobs?after=***", 422, "invalid_cursor"),
        ("GET", "/v1/models?limit=0", 422, "invalid_request"),
    ],
)
def test_what_is_not_there(reader: Service, method: str, path: str, status: int, code: str) -> None:
    response = reader.client.request(method, path)
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert set(body) >= {"type", "title", "status", "detail", "code"}
