"""Tests of routes that are answered past the framework: the answers are those of the framework."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from service.api.route import ScopedRoute
from testing.data.digits import png
from testing.data.models import MODEL
from testing.servers.service import Service

PNG = {"Content-Type": "image/png"}
SHOW, PREDICT = f"/v1/models/{MODEL}", f"/v1/models/{MODEL}/predict"


def route(service: Service, path: str, method: str) -> ScopedRoute:
    app = service.server.config.app
    assert isinstance(app, FastAPI)
    found = [context.original_route for context in iter_route_contexts(app.routes)]
    (one,) = (r for r in found if isinstance(r, ScopedRoute) and r.path == path and method in (r.methods or ()))
    return one


def said(answer: httpx.Response) -> tuple[int, dict[str, str], object]:
    """Status, headers and body, but for what differs from request to request."""
    headers = {name: value for name, value in answer.headers.items() if name not in ("x-request-id", "date")}
    body = answer.json()
    body.pop("request_id", None)
    assert answer.headers["X-Request-ID"]
    return answer.status_code, headers, body


def test_few_routes_are_direct(reader: Service) -> None:
    app = reader.server.config.app
    assert isinstance(app, FastAPI)
    found = (context.original_route for context in iter_route_contexts(app.routes))
    direct = {(r.path, *(r.methods or ())) for r in found if isinstance(r, ScopedRoute) and r.direct}
    assert direct == {
        ("/v1/models/{model}/predict", "POST"),
        ("/v1/models/{model}/explain", "POST"),
        ("/v1/models/{model}", "GET"),
        ("/v1/models/{model}", "HEAD"),
        ("/v2/models/{model}/infer", "POST"),
        ("/v2/models/{model}/versions/{version}/infer", "POST"),
    }


@pytest.mark.parametrize("query", ["top_k=2", "top_k=3&contenders=all", "task=low&logits=true", "version=1"])
def test_a_query_is_answered_alike_once_it_is_known(reader: Service, query: str) -> None:
    one = route(reader, "/v1/models/{model}/predict", "POST")
    one._solved.pop(query.encode(), None)
    first = said(reader.client.post(f"{PREDICT}?{query}", content=png(0, 100), headers=PNG))
    assert one.solved(query.encode()) is not None
    assert said(reader.client.post(f"{PREDICT}?{query}", content=png(0, 100), headers=PNG)) == first
    assert first[0] == 200


def test_an_empty_query_is_answered_as_one_that_says_what_holds_by_default(reader: Service) -> None:
    plain = said(reader.client.post(PREDICT, content=png(0, 100), headers=PNG))
    assert plain == said(reader.client.post(f"{PREDICT}?top_k=1", content=png(0, 100), headers=PNG))


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/v1/models/none/predict", png(0, 100), 404, "unknown_model"),
        (PREDICT, b"no image", 422, "not_an_image"),
        (f"{PREDICT}?task=none", png(0, 100), 404, "unknown_task"),
        (f"{PREDICT}?logits=true", png(0, 100), 422, "invalid_request"),
        (f"{PREDICT}?top_k=0", png(0, 100), 422, "invalid_request"),
        (f"{PREDICT}?top=1", png(0, 100), 422, "unknown_parameter"),
        (f"{PREDICT}?top_k=1&top_k=2", png(0, 100), 422, "invalid_request"),
    ],
)
def test_refusals_are_the_same_the_second_time(
    reader: Service, path: str, content: bytes, status: int, code: str
) -> None:
    answers = [said(reader.client.post(path, content=content, headers=PNG)) for _ in range(2)]
    assert answers[0] == answers[1]
    body = answers[0][2]
    assert isinstance(body, dict)
    assert (answers[0][0], body["code"], answers[0][1]["content-type"]) == (status, code, "application/problem+json")


def test_what_nobody_foresaw_is_an_internal_error(reader: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.runtime.live, "problems", lambda name: 1 / 0)
    answer = httpx.get(f"{reader.url}{SHOW}")  # on a connection of its own, which is closed
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


def test_no_more_queries_are_remembered_than_a_bound(reader: Service) -> None:
    one = route(reader, "/v1/models/{model}/predict", "POST")
    one._solved |= {b"top_k=1&made=%d" % number: {} for number in range(300)}
    reader.client.post(f"{PREDICT}?top_k=4", content=png(0, 100), headers=PNG)
    assert set(one._solved) == {b"", b"top_k=4"}
