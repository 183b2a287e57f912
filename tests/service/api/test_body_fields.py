"""Tests of fields in JSON bodies and forms, which are honoured or refused, never ignored."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest

from testing.data.digits import SMALL_MODEL, png
from testing.data.models import MODEL
from testing.servers.service import Service

PREDICT = f"/v1/models/{MODEL}/predict"
EXPLAIN = f"/v1/models/{MODEL}/explain"
IMAGE = png(2, 100)
B64 = {"b64": base64.b64encode(IMAGE).decode()}

KINDS = ("json", "form")


def ask(
    service: Service, kind: str, fields: dict[str, Any], path: str = PREDICT, query: dict[str, Any] | None = None
) -> httpx.Response:
    """The image with fields beside it, of JSON or of a form."""
    if kind == "json":
        return service.client.post(path, json={"instances": [B64], **fields}, params=query)
    parts: list[tuple[str, Any]] = [(name, (None, str(value))) for name, value in fields.items()]
    return service.client.post(path, files=[*parts, ("image", ("x", IMAGE))], params=query)


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_body_says_is_done(reader: Service, kind: str) -> None:
    plain = reader.client.post(PREDICT, content=IMAGE, headers={"Content-Type": "image/png"}).json()
    assert plain["predictions"][0]["task"] == "mid"
    told = ask(reader, kind, {"task": "low", "top_k": 2}).json()["predictions"][0]
    by_query = reader.client.post(
        PREDICT, params={"task": "low", "top_k": 2}, content=IMAGE, headers={"Content-Type": "image/png"}
    )
    assert told == by_query.json()["predictions"][0]
    assert (told["task"], len(told["top"])) == ("low", 2)
    older = ask(reader, kind, {"version": 1}).json()
    assert (older["version"], older["predictions"][0]["task"]) == (1, "low")
    logits = ask(reader, kind, {"task": "low", "logits": True}).json()["predictions"][0]["logits"]
    assert len(logits) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_body_asks_for_a_heatmap_is_done(reader: Service, kind: str) -> None:
    fields = {"task": "low", "target": "digit-1", "format": "json", "composite": "epsilon_plus"}
    told = ask(reader, kind, fields, EXPLAIN).json()
    assert (told["task"], told["label"], told["composite"]) == ("low", "digit-1", "epsilon_plus")
    assert refusal(ask(reader, kind, {"format": "gif"}, EXPLAIN)) == (422, "invalid_request")
    assert refusal(ask(reader, kind, {"top_k": 1}, EXPLAIN)) == (422, "unknown_parameter")
    older = ask(reader, kind, {"format": "json", "version": 1}, EXPLAIN).json()
    assert (older["version"], older["task"]) == (1, "low")
    assert refusal(ask(reader, kind, {"target": "none"}, EXPLAIN)) == (404, "unknown_label")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"task": "no such task"}, 404, "unknown_task"),
        ({"task": ""}, 404, "unknown_task"),
        ({"version": 9}, 404, "unknown_version"),
        ({"version": -1}, 422, "invalid_request"),
        ({"top_k": 0}, 422, "invalid_request"),
        ({"top_k": 101}, 422, "invalid_request"),
        ({"top_k": 2.5}, 422, "invalid_request"),
        ({"top_k": ""}, 422, "invalid_request"),
        ({"top_k": "many"}, 422, "invalid_request"),
        ({"logits": True}, 422, "invalid_request"),
    ],
)
def test_what_a_body_asks_in_vain(reader: Service, kind: str, fields: dict[str, Any], status: int, code: str) -> None:
    assert refusal(ask(reader, kind, fields)) == (status, code)


@pytest.mark.parametrize("fields", [{"top_k": "3"}, {"top_k": True}, {"version": "1"}, {"task": 3}, {"logits": "true"}])
def test_json_has_types(reader: Service, fields: dict[str, Any]) -> None:
    answer = ask(reader, "json", fields)
    assert refusal(answer) == (422, "invalid_request")
    assert answer.json()["errors"][0]["loc"] == [next(iter(fields))]


def test_a_form_has_text_and_json_has_nulls_and_whole_fractions(reader: Service) -> None:
    assert len(ask(reader, "form", {"top_k": "3"}).json()["predictions"][0]["top"]) == 3
    assert len(ask(reader, "json", {"top_k": 3.0, "task": None}).json()["predictions"][0]["top"]) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_query_and_the_body_must_agree(reader: Service, kind: str) -> None:
    agreed = ask(reader, kind, {"task": "low", "top_k": 2}, query={"task": "low", "top_k": 2})
    assert agreed.json()["predictions"][0]["task"] == "low"
    beside = ask(reader, kind, {"top_k": 2}, query={"task": "low"}).json()["predictions"][0]
    assert (beside["task"], len(beside["top"])) == ("low", 2)
    for fields, query in (
        ({"task": "low"}, {"task": "mid"}),
        ({"top_k": 2}, {"top_k": 1}),
        ({"version": 1}, {"version": 2}),
    ):
        answer = ask(reader, kind, fields, query=query)
        assert refusal(answer) == (400, "conflicting_parameter")
        assert next(iter(fields)) in answer.json()["detail"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["parameters", "signature_name", "tsak", "TASK", "model", "image[]", "b64"])
def test_what_is_not_known_is_named(reader: Service, kind: str, name: str) -> None:
    answer = ask(reader, kind, {name: "x"})
    assert refusal(answer) == (422, "unknown_parameter")
    assert answer.json()["errors"] == [{"loc": ["body", name], "message": "is not known"}]
    known = "image" if kind == "form" else "instances"
    assert answer.json()["detail"].endswith(f"known here: contenders, explain, {known}, logits, task, top_k, version.")


def test_an_unknown_part_may_be_a_file(reader: Service) -> None:
    both: list[tuple[str, Any]] = [("image", ("x", IMAGE)), ("mask", ("y", IMAGE, "image/png"))]
    answer = reader.client.post(PREDICT, files=both)
    assert refusal(answer) == (422, "unknown_parameter")
    assert "'mask'" in answer.json()["detail"]
    # Some clients call every part a file.
    told = reader.client.post(PREDICT, files=[("image", ("x", IMAGE)), ("task", ("task.txt", b"low"))]).json()
    assert told["predictions"][0]["task"] == "low"


def test_a_key_beside_b64_is_named(reader: Service) -> None:
    for name in ("task", "mime", "B64"):
        answer = reader.client.post(PREDICT, json={"instances": [B64, {**B64, name: "x"}]})
        assert refusal(answer) == (422, "unknown_parameter")
        assert answer.json()["errors"] == [{"loc": ["body", "instances", "1", name], "message": "is not known"}]


def test_a_field_that_is_given_twice(reader: Service) -> None:
    twice = f'{{"instances": [{json.dumps(B64)}], "task": "low", "task": "mid"}}'
    answer = reader.client.post(PREDICT, content=twice, headers={"Content-Type": "application/json"})
    assert refusal(answer) == (422, "invalid_request")
    assert "'task' is given more than once" in answer.json()["detail"]
    parts = [("task", (None, "low")), ("task", (None, "mid")), ("image", ("x", IMAGE))]
    answer = reader.client.post(PREDICT, files=parts)  # type: ignore[arg-type]  # text without a file name
    assert refusal(answer) == (422, "invalid_request")
    assert "'task' is given more than once" in answer.json()["detail"]
    model = '{"name": "x", "budget": 1.0, "budget": 2.0}'
    answer = reader.client.post("/v1/models", content=model, headers={"Content-Type": "application/json"})
    assert refusal(answer) == (422, "invalid_request")
    assert "'budget' is given more than once" in answer.json()["detail"]


def test_text_that_is_none(reader: Service) -> None:
    parts: list[tuple[str, Any]] = [("task", (None, b"\xff")), ("image", ("x", IMAGE))]
    assert refusal(reader.client.post(PREDICT, files=parts)) == (400, "invalid_multipart")
    assert refusal(reader.client.post(PREDICT, files=[("task", (None, "low"))])) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/v1/models/{MODEL}/versions/99/activate"),
        ("POST", "/v1/jobs/none/cancel"),
        ("DELETE", "/v1/models/none"),
    ],
)
def test_a_route_without_a_body_takes_no_fields(reader: Service, method: str, path: str) -> None:
    for body in (b'{"allow_empty": true}', b'{"reason": "x"}'):
        answer = reader.client.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert refusal(answer) == (422, "unknown_parameter")
    odd = reader.client.request(method, path, content=b"reason=x")
    assert refusal(odd) == (422, "invalid_request")
    for nothing in (b"", b"{}", b" {} \n", b"null"):
        answer = reader.client.request(method, path, content=nothing)
        assert answer.status_code == 404  # what it names is not there


def test_what_belongs_in_the_query_is_told(service: Service) -> None:
    answer = service.client.post(f"/v1/models/{MODEL}/versions/0/activate", json={"allow_empty": True})
    assert refusal(answer) == (422, "unknown_parameter")
    assert "allow_empty is a parameter of the query" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/models", {"name": "x", **SMALL_MODEL, "parameters": {}}),
        ("POST", "/v1/models", {"name": "x", "input": {"channels": 1, "height": 8, "width": 8, "depth": 1}}),
        ("PATCH", f"/v1/models/{MODEL}", {"budget": 2.0, "width": 3}),
        ("POST", f"/v1/models/{MODEL}/tasks", {"name": "x", "data": {"uri": "file:///x"}, "epochs": 3}),
        ("POST", f"/v1/models/{MODEL}/tasks", {"name": "x", "data": {"uri": "file:///x", "sha256": "0"}}),
        ("POST", f"/v1/models/{MODEL}/tasks", {"name": "x", "data": {"uri": "file:///x"}, "options": {"epoch": 1}}),
    ],
)
def test_other_bodies_take_no_unknown_fields_either(
    reader: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = reader.client.request(method, path, json=body)
    assert refusal(answer) == (422, "invalid_request")
    assert "is not known" in answer.json()["detail"]


@pytest.mark.parametrize("contenders", [1, 64, "all"])
def test_contenders_are_a_number_or_all(reader: Service, contenders: Any) -> None:
    plain, expected = (ask(reader, "json", one).json()["predictions"][0] for one in ({}, {"contenders": contenders}))
    for kind in KINDS:
        assert ask(reader, kind, {"contenders": contenders}).json()["predictions"][0] == expected
    assert ask(reader, "form", {}, query={"contenders": contenders}).json()["predictions"][0] == expected
    assert ask(reader, "form", {"contenders": contenders}, query={"contenders": 2}).status_code == 400
    assert expected["label"] == plain["label"]
    assert plain["task"] in plain["ran"]
    assert set(plain["ran"]) <= set(expected["ran"]) or contenders == 1
    assert [(one["evidence"], one["tasks"]) for one in plain["top"]] == [("head", [plain["task"]])]


@pytest.mark.parametrize("contenders", [0, 65, "none", "1.5"])
def test_other_contenders_are_refused_by_name(reader: Service, contenders: Any) -> None:
    for kind in KINDS:
        refused = ask(reader, kind, {"contenders": contenders})
        assert refusal(refused) == (422, "invalid_request")
        assert refused.json()["errors"][0]["loc"][-1] == "contenders"
    assert refusal(ask(reader, "form", {}, query={"contenders": contenders})) == (422, "invalid_request")


def test_contenders_in_json_are_no_text_and_no_truth(reader: Service) -> None:
    for given in ("2", True, [2]):
        assert refusal(ask(reader, "json", {"contenders": given})) == (422, "invalid_request")
    assert ask(reader, "json", {"contenders": 2.0}).status_code == 200
    assert ask(reader, "json", {"contenders": None}).status_code == 200
