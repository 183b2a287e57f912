"""Tests of forms that come at once, which are read by another way than those that come in pieces."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from service.api.schemas import PredictFields
from service.errors.exceptions import InvalidMultipart, ServiceError
from service.models import image_bodies

BOUNDARY = b"b0"
DISPOSITION = b"Content-Disposition: form-data; name="


def read(*pieces: bytes, boundary: bytes = BOUNDARY) -> object:
    """What is read of a form that comes in some pieces: its images and fields, or the error."""
    left = list(pieces)

    async def receive() -> Message:
        body = left.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(left)}

    headers = [(b"content-type", b"multipart/form-data; boundary=" + boundary)]
    request = Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}, receive)
    try:
        found = asyncio.run(image_bodies.read(request, 3, PredictFields))
    except ServiceError as error:
        return type(error), str(error)
    return found.sources, found.fields


def form(*parts: tuple[bytes, bytes], start: bytes = b"", end: bytes = b"--\r\n") -> bytes:
    """A form of parts with the given headers."""
    joined = b"".join(b"--" + BOUNDARY + b"\r\n" + headers + b"\r\n\r\n" + data + b"\r\n" for headers, data in parts)
    return start + joined + b"--" + BOUNDARY + end


NAMES = (b'"image"', b'"image"; filename="a b.png"', b'"task"', b'"top_k"', b'"none"', b"image", b'"im age"', b'""')
MORE = (
    b"",
    b"\r\nContent-Type: image/png",
    b'\r\ncontent-type: text/plain; charset="utf-8"',
    b"\r\nContent-Transfer-Encoding: base64",
    b"\r\nContent-Length: 3",
    b"\r\nX-More: " + b"x" * 9000,
)
UNUSUAL = (
    DISPOSITION + b'"image"; filename="a\\"; name=task; b=\\".png"',
    DISPOSITION + b'"image"; filename="a.png; name=task"',
    DISPOSITION + b"\"image\"; filename*=UTF-8''a.png",
    DISPOSITION.lower() + b'"image"; filename="\xc3\xa4.png"',
    b"Content-Type: image/png\r\n" + DISPOSITION + b'"image"',
    b"Content-Disposition:form-data;name=image",
    b"Content-Type: image/png",
    b"no header",
    b"",
)
HEADERS = st.one_of(st.builds(lambda name, more: DISPOSITION + name + more, *map(st.sampled_from, (NAMES, MORE))))
DATA = st.lists(
    st.sampled_from([b"5", b"\r\n", b"\r\n--", b"--", BOUNDARY, b"\r", b"\n", b"\0\xff", b"\r\n--" + BOUNDARY]),
    max_size=5,
).map(b"".join)


@given(
    st.lists(st.tuples(st.one_of(HEADERS, st.sampled_from(UNUSUAL)), DATA), max_size=5),
    st.sampled_from([b"", b"preamble\r\n", b"\r\n"]),
    st.sampled_from([b"--\r\n", b"--", b"--\r\nmore", b"\r\n", b"", b"-"]),
    st.integers(1, 200),
)
@example([(DISPOSITION + b'"image"', b"1")] * 3, b"", b"--\r\n", 9)
@example([(DISPOSITION + b'"image"', b"1")] * 4, b"", b"--\r\n", 9)
def test_a_form_is_the_same_whether_it_comes_at_once_or_in_pieces(
    parts: list[tuple[bytes, bytes]], start: bytes, end: bytes, cut: int
) -> None:
    body = form(*parts, start=start, end=end)
    cut = min(cut, len(body) - 1)
    assert read(body) == read(body[:cut], body[cut:])


@pytest.mark.parametrize(("length", "refused"), [(256, False), (257, True)])
def test_a_boundary_is_as_long_however_the_form_comes(length: int, refused: bool) -> None:
    boundary = b"b" * length
    body = b"--" + boundary + b"\r\n" + DISPOSITION + b'"image"\r\n\r\n1\r\n--' + boundary + b"--\r\n"
    found = read(body, boundary=boundary)
    assert found == read(body[:400], body[400:], boundary=boundary)
    assert (found == (InvalidMultipart, "The body is not multipart/form-data.")) == refused


@pytest.mark.parametrize("count", [1, 3])
def test_what_clients_send_is_read(count: int) -> None:
    images = [bytes([number]) * 20 for number in range(count)]
    files = [("image", (f"{number}.png", image, "image/png")) for number, image in enumerate(images)]
    kind = {"Content-Type": "multipart/form-data; boundary=" + BOUNDARY.decode()}
    body = httpx.Request("POST", "http://test", files=files, data={"task": "low"}, headers=kind).read()
    assert read(body) == read(body[:30], body[30:]) == (images, PredictFields(task="low"))
