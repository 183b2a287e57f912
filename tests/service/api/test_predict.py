"""Tests of predictions over HTTP."""

from __future__ import annotations

import base64
import struct

import httpx
import pytest
import torch

from service.settings import ServiceSettings
from testing.data.digits import pixels, png
from testing.servers.service import Service, running

PREDICT = "/v1/models/digits/predict"
PNG = {"Content-Type": "image/png"}


def images(*data: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", ("x", one, "image/png")) for one in data]


def test_one_image_as_the_body(reader: Service) -> None:
    response = reader.client.post(PREDICT, params={"top_k": 3}, content=png(2, 100), headers=PNG)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["model"], answer["version"]) == ("digits", 2)
    (prediction,) = answer["predictions"]
    said = {
        "task",
        "task_probability",
        "label",
        "probability",
        "top",
        "known",
        "novelty",
        "passes",
        "ran",
        "calibrated",
    }
    assert set(prediction) == said
    assert prediction["passes"] == 1
    assert prediction["task"] == "mid"
    assert prediction["label"] in ("digit-2", "digit-3")
    assert len(prediction["top"]) == 3
    first = prediction["top"][0]
    same = {key: prediction[key] for key in ("task", "label", "probability")}
    assert first == same | {"evidence": "head", "tasks": ["mid"]}


def test_every_kind_of_body_gives_the_same_answer(reader: Service) -> None:
    data = [png(0, 100), png(1, 101)]
    instances = [{"b64": base64.b64encode(one).decode()} for one in data]
    parts = reader.client.post(PREDICT, files=images(*data)).json()
    as_json = reader.client.post(PREDICT, json={"instances": instances}).json()
    assert parts == as_json
    assert len(parts["predictions"]) == 2
    single = reader.client.post(PREDICT, content=data[0], headers={"Content-Type": "application/octet-stream"}).json()
    assert single["predictions"][0]["label"] == parts["predictions"][0]["label"]


def test_a_bad_image_among_others_fails_alone(reader: Service) -> None:
    answer = reader.client.post(PREDICT, files=images(png(0, 100), b"", b"no image", png(1, 100)))
    assert answer.status_code == 200
    first, empty, none, last = answer.json()["predictions"]
    assert first["task"] == last["task"] == "low"
    assert empty["error"]["code"] == "empty_image"
    assert none["error"] | {"detail": ""} == {
        "type": "urn:engram:error:not_an_image",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "",
        "code": "not_an_image",
    }
    b64 = {"instances": [{"b64": "***"}, {}, {"b64": base64.b64encode(png(0, 100)).decode()}]}
    bad, missing, good = reader.client.post(PREDICT, json=b64).json()["predictions"]
    assert bad["error"]["code"] == missing["error"]["code"] == "invalid_base64"
    assert good["task"] == "low"


def test_when_all_images_are_bad_the_request_fails(reader: Service) -> None:
    answer = reader.client.post(PREDICT, files=images(b"", b"no image"))
    assert (answer.status_code, answer.json()["code"]) == (422, "empty_image")


def test_logits_are_the_bytes_that_the_memory_gives(reader: Service) -> None:
    data = [png(0, 100), png(3, 100), png(1, 100)]
    answer = reader.client.post(PREDICT, params={"task": "low", "logits": True}, files=images(*data)).json()
    batch = torch.stack([torch.from_numpy(pixels(d, 100))[None] for d in (0, 3, 1)])
    expected = reader.runtime.live.current("digits").memory.observe(batch).logits("low")
    sent = b"".join(struct.pack("<2f", *one["logits"]) for one in answer["predictions"])
    assert sent == expected.numpy().tobytes()
    assert all(one["task"] == "low" for one in answer["predictions"])


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"task": "none"}, 404, "unknown_task"),
        ({"version": 9}, 404, "unknown_version"),
        ({"version": 0}, 409, "nothing_learned"),
        ({"version": -1}, 422, "invalid_request"),
        ({"top_k": 0}, 422, "invalid_request"),
        ({"logits": True}, 422, "invalid_request"),
    ],
)
def test_questions_that_cannot_be_answered(reader: Service, params: dict[str, str], status: int, code: str) -> None:
    answer = reader.client.post(PREDICT, params=params, content=png(0, 100), headers=PNG)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_an_older_version_answers_when_asked(reader: Service) -> None:
    image = png(2, 100)
    old = reader.client.post(PREDICT, params={"version": 1}, content=image, headers=PNG).json()
    assert (old["version"], old["predictions"][0]["task"]) == (1, "low")
    new = reader.client.post(PREDICT, params={"version": 2}, content=image, headers=PNG).json()
    assert (new["version"], new["predictions"][0]["task"]) == (2, "mid")


@pytest.mark.parametrize("kind", ["text/plain", "", "application/xml"])
def test_other_media_types_are_refused(reader: Service, kind: str) -> None:
    answer = reader.client.post(PREDICT, content=png(0, 100), headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


def test_what_a_request_may_hold_is_bounded(learned_settings: ServiceSettings) -> None:
    bounded = learned_settings.model_copy(
        update={"max_images_per_request": 2, "max_request_bytes": 4096, "max_image_pixels": 32}
    )
    with running(bounded) as service:
        client = service.client
        assert problem(client.post(PREDICT, files=images(*[b"x"] * 3))) == (413, "too_many_images")
        assert problem(client.post(PREDICT, json={"instances": [{}] * 3})) == (413, "too_many_images")
        assert problem(client.post(PREDICT, content=b"x" * 5000, headers=PNG)) == (413, "request_too_large")
        unannounced = client.post(PREDICT, content=iter([b"x" * 3000] * 2), headers=PNG)
        assert problem(unannounced) == (413, "request_too_large")
        multipart = client.post(PREDICT, files=images(b"x" * 5000))
        assert problem(multipart) == (413, "request_too_large")
        assert problem(client.post(PREDICT, content=png(0, 1), headers=PNG)) == (413, "image_too_large")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"instances": []}', b'{"instances": {}}', b"[" * 4000])
def test_json_that_is_none_or_says_nothing(reader: Service, body: bytes) -> None:
    answer = reader.client.post(PREDICT, content=body, headers={"Content-Type": "application/json"})
    expected = (400, "invalid_json") if body in (b"{", b"[" * 4000) else (422, "invalid_request")
    assert problem(answer) == expected


def test_json_that_would_unfold_to_many_times_its_size(reader: Service) -> None:
    body = b'{"instances": [' + b"[]," * 100_000 + b"[]]}"
    answer = reader.client.post(PREDICT, content=body, headers={"Content-Type": "application/json"})
    assert problem(answer) == (413, "too_many_images")


def test_more_parts_than_images_are_taken(reader: Service) -> None:
    answer = reader.client.post(PREDICT, files=images(*[b"x"] * 300))
    assert problem(answer) == (413, "too_many_images")
    answer = reader.client.post(PREDICT, files=[("image", (None, b"x"))] * 300)
    assert problem(answer) == (413, "too_many_images")
    answer = reader.client.post(PREDICT, files=[("task", (None, b"x"))] * 65)
    assert problem(answer) == (400, "invalid_multipart")


def test_a_form_without_an_image(reader: Service) -> None:
    answer = reader.client.post(PREDICT, files=[("picture", ("x", b"", "image/png"))])
    assert problem(answer) == (422, "invalid_request")
    broken = reader.client.post(PREDICT, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert problem(broken) == (400, "invalid_multipart")
