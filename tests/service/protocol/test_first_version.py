"""Tests of KServe's first protocol: the answers are those of the native route."""

from __future__ import annotations

import base64
import json

from testing.data.digits import png
from testing.data.models import MODEL
from testing.servers.service import Service

DATA = [png(0, 100), png(3, 101)]
BODY = {"instances": [{"b64": base64.b64encode(one).decode()} for one in DATA]}


def test_predictions_with_and_without_a_content_type(reader: Service) -> None:
    expected = reader.client.post(f"/v1/models/{MODEL}/predict", json=BODY).json()
    assert len(expected["predictions"]) == 2
    assert reader.client.post(f"/v1/models/{MODEL}:predict", json=BODY).json() == expected
    assert reader.client.post(f"/v1/models/{MODEL}:predict", content=json.dumps(BODY)).json() == expected


def test_explanations(reader: Service) -> None:
    expected = reader.client.post(f"/v1/models/{MODEL}/predict", json=BODY, params={"explain": "overlay"}).json()
    assert reader.client.post(f"/v1/models/{MODEL}:explain", content=json.dumps(BODY)).json() == expected
    told = reader.client.post(f"/v1/models/{MODEL}:explain", json=BODY | {"explain": "json"}).json()
    assert told["predictions"][0]["explanation"]["relevance"]


def test_refusals_are_those_of_the_native_route(reader: Service) -> None:
    for path, body, status, code in (
        ("none:predict", BODY, 404, "unknown_model"),
        (f"{MODEL}:predict", {}, 422, "invalid_request"),
        (f"{MODEL}:explain", BODY | {"odd": 1}, 422, "unknown_parameter"),
        (f"{MODEL}:other", BODY, 405, "method_not_allowed"),
    ):
        answer = reader.client.post(f"/v1/models/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
