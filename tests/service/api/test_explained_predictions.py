"""Tests of predictions that bring their heatmaps along."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import learn
from testing.servers.service import Service, running, wait_until

PREDICT, EXPLAIN = "/v1/models/digits/predict", "/v1/models/digits/explain"
PNG = {"Content-Type": "image/png"}


def parts(*images: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", ("x", one, "image/png")) for one in images]


def alone(service: Service, image: bytes, style: str, **params: Any) -> httpx.Response:
    answer = service.client.post(EXPLAIN, params={"format": style, **params}, content=image, headers=PNG)
    assert answer.status_code == 200
    return answer


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
@pytest.mark.parametrize("count", [1, 4])
def test_each_prediction_has_the_picture_that_explain_gives(reader: Service, style: str, count: int) -> None:
    images = [png(number % 4, 100 + number) for number in range(count)]
    answer = reader.client.post(PREDICT, params={"explain": style}, files=parts(*images))
    assert answer.status_code == 200
    for image, prediction in zip(images, answer.json()["predictions"], strict=True):
        found, expected = prediction["explanation"], alone(reader, image, style)
        assert set(found) == {"task", "label", "composite", "format", "media_type", "b64"}
        assert base64.b64decode(found["b64"], validate=True) == expected.content
        assert found["task"] == expected.headers["X-Engram-Task"] == prediction["task"]
        assert found["label"] == expected.headers["X-Engram-Label"] == prediction["label"]
        assert (found["format"], found["media_type"]) == (style, expected.headers["Content-Type"])


def test_the_numbers_are_those_that_explain_gives(reader: Service) -> None:
    answer = reader.client.post(
        PREDICT, json={"instances": [{"b64": base64.b64encode(png(3, 100)).decode()}], "explain": "json"}
    )
    (prediction,) = answer.json()["predictions"]
    expected = alone(reader, png(3, 100), "json").json()
    names = ("task", "label", "composite", "relevance", "sum", "goal", "logit")
    assert prediction["explanation"] == {**{name: expected[name] for name in names}, "format": "json"}


@pytest.mark.parametrize("params", [{"task": "low"}, {"version": 1}, {"contenders": 1}, {"top_k": 3}])
def test_what_is_answered_is_explained_whatever_else_is_asked(reader: Service, params: dict[str, Any]) -> None:
    answer = reader.client.post(
        PREDICT, params={"explain": "heatmap", **params}, content=png(2, 101), headers=PNG
    ).json()
    (prediction,) = answer["predictions"]
    found = prediction["explanation"]
    assert (found["task"], found["label"]) == (prediction["task"], prediction["label"])
    if "version" not in params:
        expected = alone(reader, png(2, 101), "heatmap", task=prediction["task"], target=prediction["label"])
        assert base64.b64decode(found["b64"]) == expected.content


def test_without_explain_there_is_none(reader: Service) -> None:
    (prediction,) = reader.client.post(PREDICT, content=png(2, 100), headers=PNG).json()["predictions"]
    assert "explanation" not in prediction


def test_a_bad_image_among_others_fails_alone(reader: Service) -> None:
    answer = reader.client.post(
        PREDICT, params={"explain": "overlay"}, files=parts(png(0, 100), b"no image", png(1, 100))
    )
    first, none, last = answer.json()["predictions"]
    assert none["error"]["code"] == "not_an_image"
    for one, image in ((first, png(0, 100)), (last, png(1, 100))):
        assert base64.b64decode(one["explanation"]["b64"]) == alone(reader, image, "overlay").content


def test_few_images_are_explained_in_one_request(reader: Service) -> None:
    most = reader.runtime.settings.max_heatmaps_per_request
    images = [png(0, 100)] * (most + 1)
    for count, status in ((most, 200), (most + 1, 413)):
        answer = reader.client.post(PREDICT, params={"explain": "overlay"}, files=parts(*images[:count]))
        assert answer.status_code == status
    assert answer.json()["code"] == "too_many_images"
    assert str(most) in answer.json()["detail"]
    assert reader.client.post(PREDICT, files=parts(*images)).status_code == 200


def test_unknown_formats_are_refused(reader: Service) -> None:
    answer = reader.client.post(PREDICT, params={"explain": "gif"}, content=png(0, 100), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


@pytest.fixture
def narrow(learned_settings: ServiceSettings) -> Iterator[Service]:
    """A service in which two heatmaps may wait."""
    with running(learned_settings.model_copy(update={"explain_queue": 2})) as service:
        yield service


def test_heatmaps_that_wait_are_bounded(narrow: Service) -> None:
    ask = {"explain": "overlay"}
    assert narrow.client.post(PREDICT, params=ask, files=parts(png(0, 1), png(1, 1), png(2, 1))).status_code == 413
    with narrow.runtime.inference.heatmaps.held(1):
        for files, status in ((parts(png(0, 1), png(1, 1)), 503), (parts(png(0, 1)), 200)):
            answer = narrow.client.post(PREDICT, params=ask, files=files)
            assert answer.status_code == status
            if status == 503:
                assert answer.json()["code"] == "overloaded"
                assert answer.headers["Retry-After"]
        assert narrow.client.post(PREDICT, files=parts(png(0, 1), png(1, 1))).status_code == 200
    assert narrow.client.post(PREDICT, params=ask, files=parts(png(0, 1), png(1, 1))).status_code == 200


def test_a_task_without_a_network_is_answered_and_says_that_it_has_no_heatmap(service: Service) -> None:
    learn(service.vault, "single", (7,))

    def ask() -> httpx.Response:
        return service.client.post(PREDICT, params={"explain": "overlay", "task": "single"}, files=parts(png(7, 100)))

    wait_until(lambda: ask().status_code == 200)  # until then it has not heard of the task
    (prediction,) = ask().json()["predictions"]
    assert prediction["label"] == "digit-7"
    assert prediction["explanation"]["error"]["code"] == "no_network"


def test_the_document_says_what_comes(reader: Service) -> None:
    document = reader.client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"task", "label", "format", "b64"} <= schemas["ExplanationResponse"]["properties"].keys()
    assert "explanation" in schemas["PredictionResponse"]["properties"]
    operation = document["paths"]["/v1/models/{model}/predict"]["post"]
    (parameter,) = [one for one in operation["parameters"] if one["name"] == "explain"]
    assert parameter["schema"]["enum"] == ["overlay", "heatmap", "json"]
