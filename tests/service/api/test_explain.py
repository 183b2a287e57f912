"""Tests of heatmaps over HTTP."""

from __future__ import annotations

import base64
from io import BytesIO

import pytest
from PIL import Image

from testing.data.digits import png
from testing.servers.service import Service

EXPLAIN = "/v1/models/digits/explain"
PNG = {"Content-Type": "image/png"}


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
def test_a_picture(reader: Service, style: str) -> None:
    response = reader.client.post(EXPLAIN, params={"format": style}, content=png(2, 100), headers=PNG)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "image/png"
    assert response.headers["X-Engram-Task"] == "mid"
    assert response.headers["X-Engram-Label"] in ("digit-2", "digit-3")
    assert response.headers["X-Engram-Version"] == "2"
    with Image.open(BytesIO(response.content)) as picture:
        picture.load()
        assert min(picture.size) >= 8


def test_numbers_that_add_up(reader: Service) -> None:
    params = {"format": "json", "target": "digit-1", "task": "low"}
    answer = reader.client.post(EXPLAIN, params=params, content=png(1, 100), headers=PNG).json()
    assert (answer["task"], answer["label"], answer["version"]) == ("low", "digit-1", 2)
    values = [value for channel in answer["relevance"] for row in channel for value in row]
    assert len(values) == 64
    assert sum(values) == pytest.approx(answer["sum"], abs=1e-4)
    assert set(answer) == {"model", "version", "task", "label", "composite", "relevance", "sum", "goal", "logit"}
    assert any(values)


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"target": "digit-9"}, 404, "unknown_label"),
        ({"task": "none"}, 404, "unknown_task"),
        ({"composite": "none"}, 404, "unknown_composite"),
        ({"format": "gif"}, 422, "invalid_request"),
        ({"version": "99"}, 404, "unknown_version"),
        ({"version": "-1"}, 422, "invalid_request"),
        ({"version": "0"}, 409, "nothing_learned"),
    ],
)
def test_what_is_not_there(reader: Service, params: dict[str, str], status: int, code: str) -> None:
    response = reader.client.post(EXPLAIN, params=params, content=png(1, 100), headers=PNG)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_one_image_at_a_time(reader: Service) -> None:
    two = [("image", ("x", png(1, 1), "image/png"))] * 2
    assert reader.client.post(EXPLAIN, files=two).json()["code"] == "too_many_images"
    bad = reader.client.post(EXPLAIN, content=b"", headers=PNG)
    assert (bad.status_code, bad.json()["code"]) == (422, "empty_image")


def test_the_document_names_the_composites_that_there_are(reader: Service) -> None:
    described = reader.client.get("/openapi.json").json()["paths"]["/v1/models/{model}/explain"]["post"]
    (description,) = [one["description"] for one in described["parameters"] if one["name"] == "composite"]
    refused = reader.client.post(EXPLAIN, params={"composite": "none"}, content=png(2, 100), headers=PNG).json()
    names = refused["detail"].partition("there are ")[2]
    assert names
    assert names in description


def test_an_older_version_is_explained(reader: Service) -> None:
    one = reader.client.post(EXPLAIN, params={"version": 1}, content=png(1, 100), headers=PNG)
    assert (one.headers["X-Engram-Version"], one.headers["X-Engram-Task"]) == ("1", "low")
    same = {"instances": [{"b64": base64.b64encode(png(1, 100)).decode()}], "version": 1}
    assert reader.client.post(EXPLAIN, json=same).content == one.content
    refused = reader.client.post(EXPLAIN, params={"version": 2}, json=same).json()
    assert refused["code"] == "conflicting_parameter"
    later = reader.client.post(EXPLAIN, params={"version": 1, "task": "mid"}, content=png(2, 100), headers=PNG).json()
    assert later["code"] == "unknown_task"
