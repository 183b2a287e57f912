"""Tests of base64 as tools write it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from service.errors.exceptions import InvalidBase64
from service.models.base64_text import decoded
from testing.data.digits import png
from testing.data.models import MODEL
from testing.servers.service import Service

# Long enough for several lines, and with both letters that alphabets differ in.
DATA = bytes(range(256)) + b"\xfb\xff\xfe"
PLAIN = base64.b64encode(DATA).decode()
LINES = base64.encodebytes(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        LINES,
        LINES.replace("\n", "\r\n"),
        LINES.replace("\n", " ").strip(),
        "\n".join(f"    {line}" for line in LINES.splitlines()),
        PLAIN + "\n",
        f"  {PLAIN}\t",
        "\ufeff" + PLAIN,
        PLAIN.rstrip("="),
        PLAIN + "=",
        base64.urlsafe_b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        f"data:image/png;base64,{PLAIN}",
        f"DATA:image/png;Base64,{LINES}",
        f"data:;base64,{PLAIN}",
        f"data:image/png;name=a.png;base64,{PLAIN.rstrip('=')}",
        "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
    ],
)
def test_what_tools_write(text: str) -> None:
    assert decoded(text) == DATA


def test_every_length_with_and_without_padding() -> None:
    for length in range(40):
        data = DATA[-length:] if length else b""
        text = base64.b64encode(data).decode()
        assert decoded(text) == decoded(text.rstrip("=")) == decoded(text + "\n") == data


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("***", "'*' at character 1"),
        ("QUJ*RA==", "'*' at character 4"),
        ("QUI=QUI=", "padding .* inside"),
        ("QUJDR", "5 characters"),
        ("ab+/cd-_", "mixes"),
        ("QUJ DRA+=", "spaces"),
        ("iVBORw0KGgo AAAANSUhEUg==", "spaces"),
        ("data:image/png,%89PNG", "not base64: ;base64"),
        ("data:image/png;base64", "without a comma"),
        ("https://example.org/a.png", "address"),
        ("s3://bucket/a.png", "address"),
        ("file:///a.png", "address"),
        ("/home/me/a.png", "name of a file"),
        ("images/a.jpeg", "name of a file"),
        ("C:\\Pictures\\a b.png", "name of a file"),
        ("./a.webp", "name of a file"),
        ("b'iVBORw0KGgo='", "Python prints"),
        ("iVBORw0K%2BGgo", "percent-encoded"),
        ("89504e470d0a1a0a", "hexadecimal"),
        ("FFD8FFE0\n00104A46", "hexadecimal"),
        ("/9j/4AAQ*", "'\\*' at character 9"),
        ("bücher", "'ü' at character 2"),
        (None, "is null, not text"),
        (3, "is a number, not text"),
        (True, "is true or false, not text"),
        ([1, 2], "is a list, not text"),
        ({"b64": "x"}, "is an object, not text"),
    ],
)
def test_what_is_none_is_told_what_it_is(given: Any, reason: str) -> None:
    with pytest.raises(InvalidBase64, match=reason.replace("'*'", r"'\*'")):
        decoded(given)


def test_a_jpeg_s_beginning_is_no_file_name() -> None:
    assert decoded("/9j/4AAQ") == b"\xff\xd8\xff\xe0\x00\x10"


def test_the_service_reads_them(reader: Service) -> None:
    image = png(0, 100)
    texts = [base64.encodebytes(image).decode(), f"data:image/png;base64,{base64.b64encode(image).decode()}", "a.png"]
    body = {"instances": [{"b64": text} for text in texts]}
    first, second, name = reader.client.post(f"/v1/models/{MODEL}/predict", json=body).json()["predictions"]
    assert first == second
    assert first["task"] == "low"
    assert (name["error"]["status"], name["error"]["code"]) == (422, "invalid_base64")
    assert "name of a file" in name["error"]["detail"]
