"""Tests of inference by the Open Inference Protocol over REST: the answers are those of `/predict`."""

from __future__ import annotations

import base64
import gzip
import io
import json
import zlib
from typing import Any

import numpy
import pytest
from PIL import Image

from testing.data.digits import pixels, png
from testing.data.models import MODEL
from testing.servers.service import Service
from tests.service.protocol.bodies import INFER, LENGTH, binary, elements, outputs, pictures

DATA = [png(0, 100), png(3, 101), png(2, 100)]
DIGITS = ((0, 100), (3, 101), (2, 100))
CLASSES = [("low", "digit-0"), ("low", "digit-1"), ("mid", "digit-2"), ("mid", "digit-3")]


def predictions(service: Service, *data: bytes, **query: Any) -> list[dict[str, Any]]:
    """What the native route answers."""
    files = [("image", ("x", one, "image/png")) for one in data]
    answer = service.client.post(f"/v1/models/{MODEL}/predict", files=files, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


def test_the_answers_are_those_of_the_native_route(reader: Service) -> None:
    native = predictions(reader, *DATA, top_k=100)
    found = outputs(reader.client.post(INFER, **pictures(*DATA)))
    assert list(found) == [
        *("label", "task", "probability", "task_probability", "novelty", "known", "known_judged", "probabilities")
    ]
    for name in ("label", "task"):
        assert found[name].tolist() == [one[name] for one in native]
    for name in ("probability", "task_probability", "novelty"):
        assert found[name].tolist() == numpy.array([one[name] for one in native], "f4").tolist()
    assert found["known"].tolist() == [bool(one["known"]) for one in native]
    assert found["known_judged"].tolist() == [one["known"] is not None for one in native]
    for row, one in zip(found["probabilities"], native, strict=True):
        told = {(top["task"], top["label"]): top["probability"] for top in one["top"]}
        assert row.tolist() == numpy.array([told[key] for key in CLASSES], "f4").tolist()


def test_every_kind_of_body_gives_the_same_answer(reader: Service) -> None:
    expected = outputs(reader.client.post(INFER, **pictures(*DATA)))
    texts = [base64.b64encode(one).decode() for one in DATA]
    one: dict[str, Any] = {"name": "image", "shape": [3], "datatype": "BYTES", "data": texts}
    encoded = elements(*(text.encode() for text in texts))
    about = {"content_type": "pillow_image", "binary_data_size": len(encoded)}
    raw = b"".join(pixels(*which)[:, :, None].tobytes() for which in DIGITS)
    height, width = pixels(0, 100).shape
    shown = {"name": "pixels", "shape": [3, height, width, 1], "datatype": "UINT8"}
    nested = [pixels(*which)[:, :, None].tolist() for which in DIGITS]
    flat = [value for which in DIGITS for value in pixels(*which).ravel().tolist()]
    bodies: list[dict[str, Any]] = [
        {"json": {"inputs": [one]}},
        {"json": {"inputs": [one | {"parameters": {"content_type": "base64"}}]}},
        {"json": {"inputs": [one | {"shape": [3, 1], "data": [[text] for text in texts]}]}},
        binary({"inputs": [{"name": "image", "shape": [3, 1], "datatype": "BYTES", "parameters": about}]}, encoded),
        binary({"inputs": [shown | {"parameters": {"binary_data_size": len(raw)}}]}, raw),
        {"json": {"inputs": [shown | {"data": nested}]}},
        {"json": {"inputs": [shown | {"data": flat}]}},
    ]
    for body in bodies:
        found = outputs(reader.client.post(INFER, **body))
        for name in expected:
            assert found[name].tolist() == expected[name].tolist(), (name, str(body)[:100])


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "application/x-www-form-urlencoded", "text/plain"])
def test_an_encoded_picture_alone_whatever_its_content_type(reader: Service, kind: str | None) -> None:
    headers = {LENGTH: "0"} | ({"Content-Type": kind} if kind else {})
    answer = reader.client.post(INFER, content=DATA[0], headers=headers)
    assert outputs(answer)["label"].tolist() == [predictions(reader, DATA[0])[0]["label"]]
    assert answer.json() | {"outputs": []} == {"model_name": MODEL, "model_version": "2", "outputs": []}
    same = reader.client.post(INFER, content=DATA[0], headers={"Content-Type": "image/png"})
    assert same.content == answer.content


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies(reader: Service, name: str, pack: Any) -> None:
    body = pictures(DATA[0])
    headers = {**body["headers"], "Content-Encoding": name}
    answer = reader.client.post(INFER, content=pack(body["content"]), headers=headers)
    assert outputs(answer)["label"].tolist() == [predictions(reader, DATA[0])[0]["label"]]


def test_an_id_comes_back(reader: Service) -> None:
    body = json.loads(json.dumps({"id": "a:b", "inputs": [_given(DATA[0])], "model_name": MODEL}))
    assert reader.client.post(INFER, json=body).json()["id"] == "a:b"


def _given(*data: bytes) -> dict[str, Any]:
    texts = [base64.b64encode(one).decode() for one in data]
    return {"name": "image", "shape": [len(data)], "datatype": "BYTES", "data": texts}


def test_outputs_are_answered_as_each_is_asked_for(reader: Service) -> None:
    wanted: list[dict[str, Any]] = [{"name": "novelty"}, {"name": "label", "parameters": {"binary_data": True}}]
    body = pictures(*DATA, outputs=wanted, binary_data_output=False)
    answer = reader.client.post(INFER, **body)
    told = json.loads(answer.content[: int(answer.headers[LENGTH])])["outputs"]
    assert [one["name"] for one in told] == ["novelty", "label"]
    assert ["data" in one for one in told] == [True, False]
    assert outputs(answer)["label"].tolist() == [one["label"] for one in predictions(reader, *DATA)]


def test_classification_names_the_best_classes(reader: Service) -> None:
    wanted = [{"name": "probabilities", "parameters": {"classification": 3}}]
    found = outputs(reader.client.post(INFER, **pictures(*DATA, outputs=wanted)))["probabilities"]
    assert found.shape == (3, 3)
    every = outputs(reader.client.post(INFER, **pictures(*DATA)))["probabilities"]
    for row, values in zip(found.tolist(), every, strict=True):
        best = sorted(range(4), key=lambda number: -values[number])[:3]
        assert row == [f"{values[number]:f}:{number}:{CLASSES[number][1]}" for number in best]


def test_a_task_and_more_labels_are_asked_for_by_parameters(reader: Service) -> None:
    native = predictions(reader, *DATA, task="mid", top_k=2)
    found = outputs(reader.client.post(INFER, **pictures(*DATA, task="mid", top_k=2)))
    for name in ("label", "task"):
        assert found[name].tolist() == [[top[name] for top in one["top"]] for one in native]
    assert found["probability"].shape == (3, 2)
    assert found["novelty"].shape == (3,)
    assert found["probabilities"][:, :2].tolist() == [[0.0, 0.0]] * 3
    told = {top["label"]: numpy.float32(top["probability"]) for top in native[0]["top"]}
    assert found["probabilities"][0, 2:].tolist() == [told["digit-2"], told["digit-3"]]


def test_an_older_version_answers_when_asked_and_its_classes_keep_their_numbers(reader: Service) -> None:
    answer = reader.client.post(f"/v2/models/{MODEL}/versions/1/infer", content=DATA[0], headers={LENGTH: "0"})
    assert answer.json()["model_version"] == "1"
    old = outputs(answer)["probabilities"]
    assert old.shape == (1, 2)
    native = predictions(reader, DATA[0], version=1, top_k=2)[0]["top"]
    told = {one["label"]: numpy.float32(one["probability"]) for one in native}
    assert old[0].tolist() == [told["digit-0"], told["digit-1"]]


def test_a_heatmap_is_the_picture_that_explain_draws(reader: Service) -> None:
    found = outputs(reader.client.post(INFER, **pictures(*DATA[:2], outputs=[{"name": "heatmap"}, {"name": "label"}])))
    for number, data in enumerate(DATA[:2]):
        drawn = reader.client.post(f"/v1/models/{MODEL}/explain", content=data, headers={"Content-Type": "image/png"})
        expected = numpy.asarray(Image.open(io.BytesIO(drawn.content)).convert("RGB"))
        assert found["heatmap"][number].tolist() == expected.tolist()
    described = reader.client.get(f"/v2/models/{MODEL}").json()["outputs"]
    (shape,) = (one["shape"] for one in described if one["name"] == "heatmap")
    assert [-1, *found["heatmap"].shape[1:]] == shape
