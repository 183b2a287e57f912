"""Tests of packed bodies, which are unpacked on every route, or refused for what is wrong."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Message

from service.errors.exceptions import InvalidContentEncoding
from service.middleware.content_encoding import UnpackedBody, encodings
from service.settings import ServiceSettings
from testing.data.digits import QUICK, SMALL_MODEL, archive, png
from testing.data.models import MODEL
from testing.servers.service import Service, running

PREDICT = f"/v1/models/{MODEL}/predict"
TASKS = f"/v1/models/{MODEL}/tasks"
JSON = {"Content-Type": "application/json"}


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def members(data: bytes) -> bytes:
    return gzip.compress(data[:10]) + gzip.compress(b"") + gzip.compress(data[10:])


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "in capitals": ("GZip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "several members": ("gzip", members),
    "deflate": ("deflate", zlib.compress),
    "deflate without a header": ("deflate", raw_deflate),
    "twice": ("deflate, gzip", lambda data: gzip.compress(zlib.compress(data))),
    "identity": ("identity", lambda data: data),
    "identity among others": ("identity, gzip", gzip.compress),
    "nothing": ("", lambda data: data),
}


def problem(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.status_code, response.json()["code"]


@pytest.mark.parametrize("how", PACKED)
def test_images_that_come_packed(reader: Service, how: str) -> None:
    name, pack = PACKED[how]
    image = png(2, 100)
    plain = reader.client.post(PREDICT, content=image, headers={"Content-Type": "image/png"}).json()
    headers = {"Content-Encoding": name}
    body = reader.client.post(PREDICT, content=pack(image), headers=headers | {"Content-Type": "image/png"})
    assert body.json() == plain
    document = json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}]}).encode()
    assert reader.client.post(PREDICT, content=pack(document), headers=headers | JSON).json() == plain
    form = b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n' + image + b"\r\n--b--\r\n"
    media = {"Content-Type": "multipart/form-data; boundary=b"}
    assert reader.client.post(PREDICT, content=pack(form), headers=headers | media).json() == plain
    drops = (bytes([one]) for one in pack(image))
    assert reader.client.post(PREDICT, content=drops, headers=headers | {"Content-Type": "image/png"}).json() == plain


def test_every_other_body_too(service: Service) -> None:
    def post(path: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        packed = gzip.compress(content)
        return service.client.post(path, content=packed, headers={"Content-Encoding": "gzip", **headers})

    made = post("/v1/models", json.dumps({"name": "packed", **SMALL_MODEL}).encode(), JSON)
    assert made.status_code == 201
    wider = service.client.patch(
        "/v1/models/packed",
        content=zlib.compress(b'{"budget": 9.0}'),
        headers={"Content-Encoding": "deflate", **JSON},
    )
    assert wider.json()["budget"] != made.json()["budget"]
    data = archive((8, 9), 4)
    request = httpx.Request(
        "POST",
        service.url,
        files=[
            ("name", (None, "high")),
            ("options", (None, json.dumps(QUICK))),
            ("data", ("data.zip", data)),
        ],
    )
    sent = post(TASKS, request.read(), {"Content-Type": request.headers["Content-Type"]})
    assert sent.status_code == 202
    record = service.vault.jobs.get(sent.json()["job"]["id"])
    assert service.vault.objects.get(f"data/{record.data}") == data
    assert post(f"{TASKS}", b'{"name": "x", "data": {"uri": "/x"}}', JSON).json()["code"] == "data_uri_not_allowed"


def test_packed_or_not_it_is_the_same_request(service: Service) -> None:
    content = json.dumps({"name": "once", **SMALL_MODEL}).encode()
    key = {"Idempotency-Key": "one", **JSON}
    first = service.client.post("/v1/models", content=content, headers=key)
    again = service.client.post(
        "/v1/models", content=gzip.compress(content), headers={"Content-Encoding": "gzip", **key}
    )
    assert (first.status_code, again.status_code, again.headers["Idempotent-Replayed"]) == (201, 201, "true")
    other = service.client.post(
        "/v1/models", content=gzip.compress(content + b" "), headers={"Content-Encoding": "gzip", **key}
    )
    assert problem(other) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("name", ["br", "zstd", "compress", "aws-chunked", "gzip, br", "br, gzip", "x", "gzip;q=1"])
@pytest.mark.parametrize("path", [PREDICT, f"/v1/models/{MODEL}/explain", TASKS, "/v1/models"])
def test_what_is_not_unpacked(reader: Service, name: str, path: str) -> None:
    media = "multipart/form-data; boundary=b" if path == TASKS else "application/json"
    answer = reader.client.post(path, content=b"x" * 50, headers={"Content-Encoding": name, "Content-Type": media})
    if name == "br, gzip":
        assert problem(answer)[0] == 415
    assert problem(answer) == (415, "unsupported_content_encoding")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, identity"


def test_a_body_that_is_packed_too_often(reader: Service) -> None:
    image = png(0, 100)
    for times, expected in ((3, 200), (4, 415)):
        packed = image
        for _ in range(times):
            packed = gzip.compress(packed)
        headers = {"Content-Encoding": ", ".join(["gzip"] * times), "Content-Type": "image/png"}
        assert reader.client.post(PREDICT, content=packed, headers=headers).status_code == expected


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "not packed": lambda data: data,
    "cut off": lambda data: gzip.compress(data)[:-1],
    "only begun": lambda data: gzip.compress(data)[:5],
    "a wrong check sum": lambda data: gzip.compress(data)[:-8] + bytes(8),
    "something behind it": lambda data: gzip.compress(data) + b"x",
    "packed otherwise": zlib.compress,
}
BODIES = {
    "image/png": (PREDICT, png(0, 100)),
    "application/json": ("/v1/models", json.dumps({"name": "damaged", **SMALL_MODEL}).encode()),
    "multipart/form-data; boundary=b": (
        TASKS,
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b--\r\n',
    ),
}


@pytest.mark.parametrize("how", DAMAGED)
@pytest.mark.parametrize("media", BODIES)
def test_what_is_not_packed_as_it_says(reader: Service, how: str, media: str) -> None:
    path, content = BODIES[media]
    headers = {"Content-Encoding": "gzip", "Content-Type": media}
    answer = reader.client.post(path, content=DAMAGED[how](content), headers=headers)
    assert problem(answer) == (400, "invalid_content_encoding")
    assert reader.client.get("/v1/models/damaged").status_code == 404


def test_no_body_is_not_packed(reader: Service) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "image/png"}
    assert problem(reader.client.post(PREDICT, content=b"", headers=headers)) == (422, "empty_image")
    assert reader.client.get("/v1/models", headers={"Content-Encoding": "br"}).status_code == 200


def test_limits_count_what_comes_out(learned_settings: ServiceSettings) -> None:
    changes = {"max_request_bytes": 2**20, "max_upload_bytes": 2**20, "max_document_bytes": 2**16}
    with running(learned_settings.model_copy(update=changes)) as service:
        bomb = gzip.compress(bytes(2**28))
        assert len(bomb) < 2**19
        noise = random.Random(0).randbytes(2**20 + 1)
        for path, media, code in (
            (PREDICT, "image/png", "request_too_large"),
            (PREDICT, "application/json", "request_too_large"),
            ("/v1/models", "application/json", "request_too_large"),
            (TASKS, "multipart/form-data; boundary=b", "upload_too_large"),
        ):
            headers = {"Content-Encoding": "gzip", "Content-Type": media}
            head = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n' if path == TASKS else b""
            packed = gzip.compress(head) + bomb
            assert problem(service.client.post(path, content=packed, headers=headers)) == (413, code)
            # What comes in is counted as well.
            assert problem(service.client.post(path, content=noise, headers=headers)) == (413, code)
        nested = gzip.compress(bomb)
        headers = {"Content-Encoding": "gzip, gzip", "Content-Type": "image/png"}
        assert problem(service.client.post(PREDICT, content=nested, headers=headers)) == (413, "request_too_large")


def test_a_body_of_an_outsider_is_not_unpacked(learned_settings: ServiceSettings) -> None:
    with running(learned_settings.model_copy(update={"keys": "required"})) as service:
        headers = {"Content-Encoding": "br", "Content-Type": "image/png"}
        assert problem(service.client.post(PREDICT, content=b"x", headers=headers)) == (401, "unauthorized")


def unpacked(packed: bytes, names: tuple[str, ...], size: int) -> Iterator[bytes]:
    """The pieces that come out of a body that comes in pieces of `size`."""
    coming = [packed[at : at + size] for at in range(0, len(packed), size)]

    async def receive() -> Message:
        return {"type": "http.request", "body": coming.pop(0), "more_body": bool(coming)}

    body = UnpackedBody(receive, names)
    more = True
    while more:
        message: Any = asyncio.run(body.receive())
        more = message["more_body"]
        yield message["body"]


@pytest.mark.parametrize("size", [1, 7, 1000, 10**9])
@pytest.mark.parametrize("how", [how for how in PACKED if PACKED[how][0] not in ("", "identity")])
def test_pieces_are_small_however_they_come(how: str, size: int) -> None:
    data = random.Random(0).randbytes(1000) + bytes(2**20)
    name, pack = PACKED[how]
    names = encodings([(b"content-encoding", name.encode())])
    pieces = list(unpacked(pack(data), names, size))
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 256 * 2**10


@pytest.mark.parametrize("size", [1, 7, 10**9])
@pytest.mark.parametrize("name", ["gzip", "deflate"])
@pytest.mark.parametrize("rest", [b"\0", bytes(512), b"junk", b"\r\n", b"\x1f"])
def test_what_follows_a_packed_body_is_called_so(rest: bytes, name: str, size: int) -> None:
    whole = gzip.compress(b"content") if name == "gzip" else zlib.compress(b"content")
    with pytest.raises(InvalidContentEncoding, match=r"^Something follows the end of the packed body\.$"):
        list(unpacked(whole + rest, (name,), size))
    with pytest.raises(InvalidContentEncoding, match="is not packed as"):
        list(unpacked(b"\0" + whole, (name,), size))


def test_what_is_never_asked_for_is_never_unpacked() -> None:
    pieces = unpacked(gzip.compress(bytes(2**24)) + b"damaged", ("gzip",), 10**9)
    assert len(next(pieces)) <= 256 * 2**10
    with pytest.raises(InvalidContentEncoding):
        list(pieces)


def test_names_of_several_headers() -> None:
    headers = [(b"content-encoding", b"deflate"), (b"x", b"y"), (b"content-encoding", b"identity, GZIP ")]
    assert encodings(headers) == ("deflate", "gzip")
    assert encodings([(b"accept-encoding", b"gzip")]) == ()
