"""Tests of what the Open Inference Protocol refuses, and of how it says so."""

from __future__ import annotations

import base64
import contextlib
import socket
from typing import Any

import httpx
import pytest

from service.settings import ServiceSettings
from testing.data.digits import png
from testing.data.models import MODEL
from testing.data.tokens import bearer, token
from testing.servers.service import Service, running, wait_until
from tests.service.protocol.bodies import INFER, LENGTH, binary, elements, pictures, refused

DATA = png(0, 100)
TEXT = base64.b64encode(DATA).decode()
IMAGE: dict[str, Any] = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [TEXT]}
PIXELS: dict[str, Any] = {"name": "pixels", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": [0] * 64}


def sized(size: Any, **changes: Any) -> dict[str, Any]:
    return {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}} | changes


WRONG: dict[str, tuple[dict[str, Any], int, str]] = {
    "no JSON": ({"content": b"{"}, 400, "invalid_json"),
    "no object": ({"json": []}, 422, "invalid_request"),
    "no inputs": ({"json": {}}, 422, "invalid_request"),
    "two inputs": ({"json": {"inputs": [IMAGE, PIXELS]}}, 422, "invalid_request"),
    "another input": ({"json": {"inputs": [IMAGE | {"name": "picture"}]}}, 422, "invalid_request"),
    "another datatype": ({"json": {"inputs": [IMAGE | {"datatype": "FP32"}]}}, 422, "invalid_request"),
    "no shape": ({"json": {"inputs": [IMAGE | {"shape": None}]}}, 422, "invalid_request"),
    "a shape below 0": ({"json": {"inputs": [IMAGE | {"shape": [-1]}]}}, 422, "invalid_request"),
    "another shape": ({"json": {"inputs": [IMAGE | {"shape": [2]}]}}, 422, "invalid_request"),
    "a shape of two": ({"json": {"inputs": [IMAGE | {"shape": [1, 2]}]}}, 422, "invalid_request"),
    "no image": ({"json": {"inputs": [IMAGE | {"shape": [0], "data": []}]}}, 422, "invalid_request"),
    "no data": ({"json": {"inputs": [sized(1, parameters={})]}}, 422, "invalid_request"),
    "no base64": ({"json": {"inputs": [IMAGE | {"data": ["***"]}]}}, 422, "invalid_base64"),
    "no text": ({"json": {"inputs": [IMAGE | {"data": [7]}]}}, 422, "invalid_base64"),
    "no picture": ({"json": {"inputs": [IMAGE | {"data": ["aGVsbG8="]}]}}, 422, "not_an_image"),
    "another id": ({"json": {"id": 7, "inputs": [IMAGE]}}, 422, "invalid_request"),
    "another model": ({"json": {"model_name": "other", "inputs": [IMAGE]}}, 400, "conflicting_parameter"),
    "an unknown field": ({"json": {"inputs": [IMAGE], "input": 1}}, 422, "unknown_parameter"),
    "an input's unknown field": ({"json": {"inputs": [IMAGE | {"size": 1}]}}, 422, "unknown_parameter"),
    "shared memory": (
        {"json": {"inputs": [sized(4, parameters={"shared_memory_region": "a", "shared_memory_byte_size": 4})]}},
        422,
        "unknown_parameter",
    ),
    "another content type": (
        {"json": {"inputs": [IMAGE | {"parameters": {"content_type": "str"}}]}},
        422,
        "invalid_request",
    ),
    "a sequence": ({"json": {"inputs": [IMAGE], "parameters": {"sequence_id": 1}}}, 422, "unknown_parameter"),
    "no top": ({"json": {"inputs": [IMAGE], "parameters": {"top_k": 0}}}, 422, "invalid_request"),
    "an unknown task": ({"json": {"inputs": [IMAGE], "parameters": {"task": "none"}}}, 404, "unknown_task"),
    "an unknown output": ({"json": {"inputs": [IMAGE], "outputs": [{"name": "logits"}]}}, 422, "unknown_parameter"),
    "an output twice": ({"json": {"inputs": [IMAGE], "outputs": [{"name": "label"}] * 2}}, 422, "invalid_request"),
    "a field twice": ({"content": b'{"id": "a", "id": "b", "inputs": []}'}, 422, "invalid_request"),
    "an output's field twice": (
        {"content": b'{"inputs": [{}], "outputs": [{"name": "label", "name": "task"}]}'},
        422,
        "invalid_request",
    ),
    "classes of a label": (
        {"json": {"inputs": [IMAGE], "outputs": [{"name": "label", "parameters": {"classification": 1}}]}},
        422,
        "invalid_request",
    ),
    "pixels of another size": ({"json": {"inputs": [PIXELS | {"shape": [1, 8, 4, 2]}]}}, 422, "invalid_request"),
    "too few pixels": ({"json": {"inputs": [PIXELS | {"data": [0] * 63}]}}, 422, "invalid_request"),
    "pixels beyond 255": ({"json": {"inputs": [PIXELS | {"data": [256] * 64}]}}, 422, "invalid_request"),
    "pixels that are fractions": ({"json": {"inputs": [PIXELS | {"data": [0.5] * 64}]}}, 422, "invalid_request"),
    "pixels that are ragged": ({"json": {"inputs": [PIXELS | {"data": [[0], [0, 1]]}]}}, 422, "invalid_request"),
    "pixels that are text": ({"json": {"inputs": [PIXELS | {"data": ["0"] * 64}]}}, 422, "invalid_request"),
    "a length beyond the body": ({"content": b"{}", "headers": {LENGTH: "3"}}, 422, "invalid_request"),
    "a length without end": ({"content": b"{}", "headers": {LENGTH: "9" * 5000}}, 422, "invalid_request"),
    "a length that is none": ({"content": b"{}", "headers": {LENGTH: "-1"}}, 422, "invalid_request"),
    "more bytes than are said": (binary({"inputs": [sized(3)]}, b"abcd"), 422, "invalid_request"),
    "fewer bytes than are said": (binary({"inputs": [sized(5)]}, b"abcd"), 422, "invalid_request"),
    "a size that is none": (binary({"inputs": [sized("4")]}, b"abcd"), 422, "invalid_request"),
    "bytes that nobody says": (binary({"inputs": [IMAGE]}, b"abcd"), 422, "invalid_request"),
    "data and bytes": (binary({"inputs": [sized(4, data=[TEXT])]}, b"abcd"), 422, "invalid_request"),
    "an element cut off": (binary({"inputs": [sized(6)]}, elements(b"abcd")[:6]), 422, "invalid_request"),
    "an element too many": (binary({"inputs": [sized(10)]}, elements(b"a", b"b")), 422, "invalid_request"),
    "no bytes at all": (binary({"inputs": [sized(4)]}, elements(b"")), 422, "empty_image"),
    "an empty body as a picture": ({"content": b"", "headers": {LENGTH: "0"}}, 422, "empty_image"),
    "more images than are taken": (pictures(*[b"x"] * 257), 413, "too_many_images"),
    "more heatmaps than are taken": (pictures(*[DATA] * 9, outputs=[{"name": "heatmap"}]), 413, "too_many_images"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(reader: Service, name: str) -> None:
    body, status, code = WRONG[name]
    assert refused(reader.client.post(INFER, **body)) == (status, code)


def test_a_picture_sent_as_json_is_told_how_it_is_taken(reader: Service) -> None:
    for headers in ({}, {"Content-Type": "application/octet-stream"}, {"Content-Type": "application/json"}):
        answer = reader.client.post(INFER, content=DATA, headers=headers)
        assert refused(answer) == (400, "invalid_json")
        assert "begins as PNG" in answer.json()["error"]
        assert f"{LENGTH}: 0" in answer.json()["error"]
    assert "/predict" in reader.client.post(INFER, files={"image": DATA}).json()["error"]


def test_what_is_right_is_taken(reader: Service) -> None:
    """What the table above is made of."""
    height, width = reader.runtime.live.current(MODEL).memory.definition.input.height, 8
    assert (height, width) == (8, 8)
    for one in (IMAGE, PIXELS):
        assert reader.client.post(INFER, json={"inputs": [one]}).status_code == 200


def test_the_image_that_cannot_be_read_is_named(reader: Service) -> None:
    answer = reader.client.post(INFER, **pictures(DATA, DATA, b"no image"))
    assert refused(answer) == (422, "not_an_image")
    assert answer.json()["error"].startswith("Image 2: ")


def test_json_that_would_unfold_to_many_times_its_size(reader: Service) -> None:
    body = b'{"inputs": [{"name": "pixels", "data": [' + b"[]," * 2_000_000 + b"[]]}]}"
    assert refused(reader.client.post(INFER, content=body)) == (413, "too_many_images")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v2/models/none/infer", 404, "unknown_model"),
        ("POST", f"/v2/models/{MODEL}/versions/9/infer", 404, "unknown_version"),
        ("POST", f"/v2/models/{MODEL}/versions/0/infer", 409, "nothing_learned"),
        ("POST", f"/v2/models/{MODEL}/versions/first/infer", 422, "invalid_request"),
        ("POST", f"{INFER}?top_k=1", 422, "unknown_parameter"),
        ("GET", INFER, 405, "method_not_allowed"),
        ("GET", "/v2/nothing", 404, "not_found"),
        ("GET", "/v2/models/none", 404, "unknown_model"),
        ("GET", f"/v2/models/{MODEL}?verison=1", 422, "unknown_parameter"),
        ("POST", "/v2/repository/models/digits/load", 404, "not_found"),
        ("GET", "/v2/health/ready?allow_empty=1", 422, "unknown_parameter"),
    ],
)
def test_what_is_not_there(reader: Service, method: str, path: str, status: int, code: str) -> None:
    content = {"content": DATA, "headers": {LENGTH: "0"}} if method == "POST" else {}
    assert refused(reader.client.request(method, path, **content)) == (status, code)  # type: ignore[arg-type]


def test_what_nobody_foresaw_is_told_as_the_protocol_does(reader: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.runtime.quotas, "count_images", lambda request, count: 1 / 0)
    answer = httpx.post(reader.url + INFER, content=DATA, headers={LENGTH: "0"})  # on a connection of its own
    assert refused(answer) == (500, "internal_error")
    native = httpx.post(f"{reader.url}/v1/models/{MODEL}/predict", content=DATA, headers={"Content-Type": "image/png"})
    assert native.headers["Content-Type"] == "application/problem+json"


@pytest.fixture
def narrow(learned_settings: ServiceSettings) -> ServiceSettings:
    """Settings of a service that takes little of everything and asks for keys."""
    little = {"max_request_bytes": 4096, "max_header_bytes": 1024, "max_connections": 2, "requests_per_minute": 3}
    return learned_settings.model_copy(update={**little, "keys": "required", "max_bodies_bytes": 8192})


def test_refusals_of_keys_limits_and_connections(narrow: ServiceSettings) -> None:
    with running(narrow) as service:
        body = {"content": DATA, "headers": {LENGTH: "0"}}
        answer = service.client.post(INFER, **body)  # type: ignore[arg-type]
        assert refused(answer) == (401, "unauthorized")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        key = bearer(token(service.vault, "predict"))
        large = service.client.post(INFER, content=b"x" * 5000, headers={LENGTH: "0", **key})
        assert refused(large) == (413, "request_too_large")
        packed = {"Content-Encoding": "br", LENGTH: "0", **key}
        strange = service.client.post(INFER, content=DATA, headers=packed)
        assert refused(strange) == (415, "unsupported_content_encoding")
        assert service.client.post(INFER, content=DATA, headers={LENGTH: "0", **key}).status_code == 200
        limited = service.client.post(INFER, content=DATA, headers={LENGTH: "0", **key})
        assert refused(limited) == (429, "rate_limited")
        assert int(limited.headers["Retry-After"]) > 0
        long = httpx.get(f"{service.url}/v2/models/{'x' * 2000}")
        assert (long.status_code, long.headers["Content-Type"]) == (431, "application/json")
        assert long.json()["code"] == "headers_too_large"
        service.client.close()
        url = httpx.URL(service.url)
        with contextlib.ExitStack() as open_ones:
            for _ in range(3):  # each begins a request, so that none is idle
                open_ones.enter_context(socket.create_connection((url.host, url.port))).send(b"GET /v2 HTTP/1.1\r\n")
            wait_until(lambda: len(service.server.server_state.connections) == 3)
            crowded = httpx.get(f"{service.url}/v2/models/{MODEL}", headers=key)
            assert refused_early(crowded) == (503, "overloaded")
            assert httpx.get(f"{service.url}/v2/health/live").json() == {"live": True}


def refused_early(answer: httpx.Response) -> tuple[int, str]:
    """As `refused`, before the request had an id."""
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["error"]
    return answer.status_code, answer.json()["code"]


def test_a_full_queue_is_told_as_the_protocol_does(reader: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = reader.runtime.inference
    monkeypatch.setattr(batcher.heatmaps._waiting, "taken", 16)
    answer = reader.client.post(INFER, **pictures(DATA, outputs=[{"name": "heatmap"}]))
    assert refused(answer) == (503, "overloaded")
    assert answer.headers["Retry-After"] == "1"
