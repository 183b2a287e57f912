"""Tests of unknown query parameters, which every route refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from service.app import create_app
from service.errors.parameters import check
from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL
from testing.data.tokens import bearer, token
from testing.servers.service import Service, running

PREDICT = f"/v1/models/{MODEL}/predict"
PNG = {"Content-Type": "image/png"}


def operations() -> Iterator[tuple[str, str, list[str], set[str]]]:
    """Method, path, query parameters and documented statuses of every operation, as the document has them."""
    for path, found in create_app(ServiceSettings(redis_url="redis://localhost:1")).openapi()["paths"].items():
        for method, operation in found.items():
            if path.startswith("/v1/"):
                query = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
                yield method.upper(), re.sub(r"{\w+}", "1", path), sorted(query), set(operation["responses"])


OPERATIONS = list(operations())


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: " ".join(one[:2]))
def test_every_route_refuses_what_it_does_not_know_and_says_what_it_knows(
    reader: Service, operation: tuple[str, str, list[str], set[str]]
) -> None:
    method, path, known, documented = operation
    refused = reader.client.request(method, path, params={"verison": "3"})
    body = refused.json()
    assert (refused.status_code, body["code"]) == (422, "unknown_parameter")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert "'verison'" in body["detail"]
    ending = f"known here: {', '.join(known)}." if known else "this route has none."
    assert body["detail"].endswith(ending)
    assert body["errors"] == [{"loc": ["query", "verison"], "message": "is not known"}]
    assert "422" in documented


def test_there_are_routes_with_pages_and_without_any_parameter() -> None:
    known = {f"{method} {path}": query for method, path, query, _ in OPERATIONS}
    assert len(known) == 35
    assert known["GET /v1/jobs"] == ["after", "limit", "model"]
    assert known["POST /v1/models/1/predict"] == ["contenders", "explain", "logits", "task", "top_k", "version"]
    assert known["GET /v1/models/1"] == []


def test_a_misspelt_version_is_not_answered_from_the_live_one(reader: Service) -> None:
    ask = {"content": png(0, 100), "headers": PNG}
    assert reader.client.post(f"{PREDICT}?version=1", **ask).json()["version"] == 1  # type: ignore[arg-type]
    refused = reader.client.post(f"{PREDICT}?top_k=1&verison=1", **ask)  # type: ignore[arg-type]
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_parameter")


def test_a_parameter_that_is_given_twice_is_not_answered_for_one_of_them(reader: Service) -> None:
    refused = reader.client.post(f"{PREDICT}?version=1&version=2", content=png(0, 100), headers=PNG)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")
    assert "'version' is given more than once" in refused.json()["detail"]


def test_a_made_up_query_is_not_sent_back_at_length() -> None:
    with pytest.raises(Exception, match=r"'x{64}' is not known") as caught:
        check(["top_k", "x" * 1000, *map(str, range(1000))], frozenset({"top_k"}))
    assert len(getattr(caught.value, "errors", ())) == 10


def test_an_outsider_is_not_told_what_a_route_knows(learned_settings: ServiceSettings) -> None:
    with running(learned_settings.model_copy(update={"keys": "required"})) as service:
        assert service.client.get("/v1/models?odd=1").status_code == 401
        mine = bearer(token(service.vault, "predict"))
        assert service.client.get("/v1/models?odd=1", headers=mine).json()["code"] == "unknown_parameter"


def test_probes_may_be_asked_with_anything(reader: Service) -> None:
    assert reader.client.get("/livez?now=1").status_code == 200
