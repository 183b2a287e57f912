"""Tests of the sentences about requests that do not fit."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from testing.data.digits import SMALL_MODEL
from testing.data.models import MODEL
from testing.servers.service import Service

LEAKS = re.compile(
    r"Value error|Input should|valid dict|\bdict\b|\bstr\b|\bint\b|NoneType|Traceback|/tmp|\.py\b|pydantic"
    r"|validation error|Error\(|Exception|<class|object at 0x|Errno|constrained|\[type="
)
"""Python's and its libraries' words, and paths of this machine."""

SHAPE = {"channels": 1, "height": 28, "width": 28}
GOOD: dict[str, Any] = {"name": "new", **SMALL_MODEL}

BODIES: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "body.input is missing"),
    "a list": ([], "body is not an object"),
    "a number": (3, "body is not an object"),
    "unknown field": (GOOD | {"colour": 1}, "body.colour is not known"),
    "name of a number": (GOOD | {"name": 5}, "body.name is not text"),
    "name in capitals": (GOOD | {"name": "NEW"}, "body.name does not match ^[a-z0-9][a-z0-9_-]{0,62}$"),
    "backbone": (GOOD | {"backbone": "vgg"}, "body.backbone is not 'mlp', 'cnn'"),
    "channels": (GOOD | {"input": SHAPE | {"channels": 2}}, "body.input.channels is not 1 or 3"),
    "height": (GOOD | {"input": SHAPE | {"height": 4}}, "body.input.height is less than 8"),
    "height of a half": (GOOD | {"input": SHAPE | {"height": 8.5}}, "body.input.height is not a whole number"),
    "convert": (GOOD | {"input": SHAPE | {"convert": "maybe"}}, "body.input.convert is neither true nor false"),
    "width": (GOOD | {"width": "wide"}, "body.width is not a number"),
    "features": (GOOD | {"commons": {"features": 65}}, "body.commons.features is not a multiple of 32"),
    "budget": (GOOD | {"budget": "all"}, "body.budget is not a number and is not an object"),
    "budget of a layer": (GOOD | {"budget": {"a": "b"}}, "body.budget.a is not a whole number"),
    "budget of a layer beyond all bounds": (GOOD | {"budget": {"a": 10**12}}, "body.budget.a is greater than 1048576"),
    "settings": (GOOD | {"settings": {"recognise_by": ["guess"]}}, "body.settings.recognise_by.0 is not 'ridge'"),
    "unknown setting": (GOOD | {"settings": {"speed": 1}}, "body.settings.speed is not known"),
    "decoder": (GOOD | {"decoder": 3}, "body.decoder is not 1 or 2"),
    "background": (
        GOOD | {"input": SHAPE | {"background": "red"}},
        "body.input.background does not match ^#[0-9a-fA-F]{6}$",
    ),
    "background of decoder 1": (
        GOOD | {"decoder": 1, "input": SHAPE | {"background": "#FF0000"}},
        "body has a background, but decoder 1 lays transparency over black: leave it out",
    ),
    "preset": (GOOD | {"settings": {"preset": "none"}}, "body.settings is not allowed: no preset is called 'none'"),
}


def check(body: dict[str, Any], beginning: str) -> None:
    assert body["code"] == "invalid_request"
    assert body["detail"].startswith(beginning)
    assert not LEAKS.search(str({name: body[name] for name in ("detail", "errors")}))
    for finding in body["errors"]:
        assert set(finding) == {"loc", "message"}


@pytest.mark.parametrize("what", BODIES)
def test_a_model_that_cannot_be_made(reader: Service, what: str) -> None:
    sent, beginning = BODIES[what]
    response = reader.client.post("/v1/models", json=sent)
    assert response.status_code == 422
    check(response.json(), beginning)


CHANGES: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "body names neither a budget nor a decoder nor a background nor publish"),
    "no decoder": ({"decoder": None}, "body.decoder cannot be null"),
    "no budget": ({"budget": None, "decoder": 2}, "body.budget cannot be null"),
    "unknown decoder": ({"decoder": 9}, "body.decoder is not 1 or 2"),
    "name of a decoder": ({"decoder": "new"}, "body.decoder is not 1 or 2"),
    "name of a budget": ({"budget": "all"}, "body.budget is not a number and is not an object"),
    "name of a colour": ({"background": "red"}, "body.background does not match ^#[0-9a-fA-F]{6}$"),
    "number of a colour": ({"background": 0xFF0000}, "body.background is not text"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_that_cannot_be_made(reader: Service, what: str) -> None:
    sent, detail = CHANGES[what]
    response = reader.client.patch(f"/v1/models/{MODEL}", json=sent)
    assert response.status_code == 422
    check(response.json(), detail)
    assert response.json()["detail"] == detail


@pytest.mark.parametrize(
    ("query", "beginning"),
    [
        ("top_k=0", "query.top_k is less than 1"),
        ("top_k=many", "query.top_k is not a whole number"),
        ("top_k=" + "9" * 5000, "query.top_k "),
        ("version=-1", "query.version is less than 0"),
        ("logits=perhaps", "query.logits is neither true nor false"),
    ],
)
def test_a_query(reader: Service, query: str, beginning: str) -> None:
    response = reader.client.post(
        f"/v1/models/{MODEL}/predict?{query}", content=b"x", headers={"Content-Type": "image/png"}
    )
    assert response.status_code == 422
    check(response.json(), beginning)


@pytest.mark.parametrize(
    ("body", "beginning"),
    [
        ({"name": "x"}, "body: data is missing"),
        ({"name": "x", "data": {"uri": ""}}, "body: data.uri has fewer characters than 1"),
        ({"name": "x", "data": {"uri": "s3://a/b"}, "options": {"epochs": 0}}, "options: epochs is less than 1"),
        ({"name": "x", "data": {"uri": "s3://a/b"}, "options": {"score": "luck"}}, "options: score is not 'l1', 'l2'"),
    ],
)
def test_a_task(reader: Service, body: dict[str, Any], beginning: str) -> None:
    response = reader.client.post(f"/v1/models/{MODEL}/tasks", json=body)
    assert response.status_code == 422
    check(response.json(), beginning)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "rnf", "width": 5.75, "input": {"channels": 3, "height": 511, "width": 228}},
        {"backbone": "mlp", "width": 16, "depth": 8, "input": {"channels": 3, "height": 1024, "width": 1024}},
    ],
)
def test_a_model_that_no_memory_holds_is_refused_before_it_is_made(reader: Service, changes: dict[str, Any]) -> None:
    response = reader.client.post("/v1/models", json={"name": "giant", "backbone": "cnn", **changes})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_definition")
    assert "weights" in response.json()["detail"]
    assert reader.client.get("/v1/models/giant").status_code == 404


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_what_is_no_number_is_not_called_too_great(reader: Service, number: str) -> None:
    others = {name: value for name, value in GOOD.items() if name != "width"}
    sent = json.dumps(others).removesuffix("}") + f', "width": {number}}}'
    response = reader.client.post("/v1/models", content=sent, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    check(response.json(), "body.width is not a finite number")


@pytest.mark.parametrize(
    "changes", [{"seed": False}, {"seed": "7"}, {"width": True}, {"budget": "8"}, {"budget": {"dense1": True}}]
)
def test_truth_and_text_are_no_numbers(reader: Service, changes: dict[str, Any]) -> None:
    response = reader.client.post("/v1/models", json=GOOD | changes)
    assert response.status_code == 422
    check(response.json(), "body.")
