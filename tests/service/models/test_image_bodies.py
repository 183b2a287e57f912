"""Tests of images as parts of a form."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import numpy
import pytest
from PIL import Image

from service.settings import ServiceSettings
from testing.data.digits import QUICK, archive, png
from testing.data.models import MODEL
from testing.servers.service import Service, running

PREDICT = f"/v1/models/{MODEL}/predict"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def form(*parts: tuple[bytes, bytes]) -> bytes:
    """A form of parts with the given headers."""
    joined = b"".join(b"--b\r\n" + headers + b"\r\n\r\n" + data + b"\r\n" for headers, data in parts)
    return joined + b"--b--\r\n"


def large() -> bytes:
    """A PNG of more than 1 MiB, of noise, in the shape that the model takes."""
    noise = numpy.random.default_rng(0).integers(0, 256, (1200, 1200), dtype=numpy.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG", compress_level=0)
    return file.getvalue()


def post(service: Service, content: bytes) -> httpx.Response:
    return service.client.post(PREDICT, content=content, headers=FORM)


@pytest.mark.parametrize(
    "headers",
    [
        b'Content-Disposition: form-data; name="image"',
        b"Content-Disposition: form-data; name=image",
        b'content-disposition: form-data; name="image"\r\nContent-Type: application/octet-stream',
        b'Content-Disposition: form-data; name="image"\r\nContent-Type: text/plain; charset=utf-16',
        b'Content-Disposition: form-data; name="image"; filename=""',
        b'Content-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Transfer-Encoding: binary',
    ],
)
def test_an_image_is_its_bytes_whatever_its_part_is_called(reader: Service, headers: bytes) -> None:
    image = png(2, 100)
    plain = reader.client.post(PREDICT, content=image, headers={"Content-Type": "image/png"}).json()
    assert post(reader, form((headers, image))).json() == plain


def test_a_large_image_too(reader: Service) -> None:
    image = large()
    assert len(image) > 2**20
    plain = reader.client.post(PREDICT, content=image, headers={"Content-Type": "image/png"})
    assert plain.status_code == 200
    assert post(reader, form((b"Content-Disposition: form-data; name=image", image))).json() == plain.json()


def test_an_image_beyond_the_limit(learned_settings: ServiceSettings) -> None:
    with running(learned_settings.model_copy(update={"max_image_bytes": 2**20})) as service:
        answer = post(service, form((b"Content-Disposition: form-data; name=image", large())))
        assert (answer.status_code, answer.json()["code"]) == (413, "image_too_large")


@pytest.mark.parametrize("encoding", [b"base64", b"quoted-printable"])
def test_a_part_that_is_encoded_is_refused_for_that(reader: Service, encoding: bytes) -> None:
    headers = b"Content-Disposition: form-data; name=image\r\nContent-Transfer-Encoding: " + encoding
    answer = post(reader, form((headers, b"aVZCT1J3")))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart")
    assert encoding.decode() in answer.json()["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        form((b"Content-Disposition: form-data; name=image", png(0, 100)))[:-8],
        form((b"Content-Disposition: form-data; name=image", png(0, 100)))[:60],
    ],
)
def test_a_form_that_is_cut_off(reader: Service, content: bytes) -> None:
    answer = post(reader, content)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_multipart")


def test_an_upload_s_data_needs_no_file_name_either(service: Service) -> None:
    noise = numpy.random.default_rng(0).bytes(2 * 2**20)
    data = archive((8, 9), 4, {"digit-8/large.png": noise})
    assert len(data) > 2**20
    parts: list[tuple[str, Any]] = [("name", (None, "high")), ("options", (None, json.dumps(QUICK)))]
    response = service.client.post(f"/v1/models/{MODEL}/tasks", files=[*parts, ("data", (None, data))])
    assert response.status_code == 202, response.text
    record = service.vault.jobs.get(response.json()["job"]["id"])
    assert service.vault.objects.get(f"data/{record.data}") == data
