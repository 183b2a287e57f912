"""Base64 as tools write it: in lines, URL-safe, without padding, or inside a `data:` URL."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote

from service.errors.exceptions import InvalidBase64

_DATA_URL = re.compile(r"\s*data:", re.IGNORECASE)
_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]{1,20}://")
_FILE_NAME = re.compile(
    r"\s*((?!/9j/)[~.]{0,2}/|[A-Za-z]:[\\/]|\\\\).*|.*\.(png|jpe?g|webp|gif|bmp|tiff?)\s*", re.IGNORECASE
)
"""What is no name of a file begins with /9j/: a JPEG in base64."""
_LONGEST_FILE_NAME = 1024
_BYTES_LITERAL = re.compile(r"\s*b(['\"])")
_HEXADECIMAL = re.compile(r"(0x)?(89504e47|ffd8ff|47494638|52494646|424d|49492a00|4d4d002a)[0-9a-f]*", re.IGNORECASE)
"""Beginnings of image files in hexadecimal digits, which are letters of base64, too."""
_STRANGE = re.compile(r"[^A-Za-z0-9+/_=\s-]")
_URL_SAFE = str.maketrans("-_", "+/")


def decoded(given: Any) -> bytes:
    """The bytes that a text of base64 stands for.

    Read are both alphabets, whatever the padding, in one line or several, alone or in a `data:` URL.

    Raises
    ------
    InvalidBase64
        It is no such text; the error says what it is instead.
    """
    if not isinstance(given, str):
        raise InvalidBase64(f"b64 is {_kind(given)}, not text.")
    if _HEXADECIMAL.match(given) and _HEXADECIMAL.fullmatch("".join(given.split())):
        raise InvalidBase64("b64 is not base64: these are hexadecimal digits.")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):  # as tools write it, or none at all
        return _tolerantly(given)


def _tolerantly(given: str) -> bytes:
    text = _without_prefix(given).replace("\ufeff", "")
    if strange := _STRANGE.search(text):
        raise InvalidBase64(f"b64 is not base64: {_otherwise(given, strange)}.")
    text = _in_one_line(text)
    if re.search(r"[+/]", text) and re.search(r"[-_]", text):
        raise InvalidBase64("b64 is not base64: it mixes the standard alphabet (+ /) with the URL-safe one (- _).")
    digits = text.rstrip("=")
    if "=" in digits:
        raise InvalidBase64("b64 is not base64: padding (=) stands inside it, as between two texts in a row.")
    if len(digits) % 4 == 1:
        raise InvalidBase64(f"b64 is not base64: {len(digits)} characters stand for no whole bytes; it may be cut off.")
    return base64.b64decode(digits.translate(_URL_SAFE) + "=" * (-len(digits) % 4), validate=True)


def _without_prefix(given: str) -> str:
    """What stands in a `data:` URL; the text itself where it is none."""
    if not _DATA_URL.match(given):
        return given
    head, comma, body = given.partition(",")
    if not comma:
        raise InvalidBase64("b64 is a data: URL without a comma, behind which its data would stand.")
    if not head.strip().lower().endswith(";base64"):
        raise InvalidBase64("b64 is a data: URL that is not base64: ;base64 does not stand before its comma.")
    return unquote(body) if "%" in body else body


def _in_one_line(text: str) -> str:
    """The text without line breaks, and without spaces that stand for some.

    A space elsewhere is the trace of a plus sign that was decoded as that of a form: left out, it would change the
    bytes.
    """
    lines = [line.strip() for line in text.splitlines()]
    joined = "".join(lines)
    pieces = joined.split()
    if len(pieces) < 2:
        return joined
    width = len(pieces[0])
    regular = all(len(piece) == width for piece in pieces[:-1]) and len(pieces[-1]) <= width
    if width % 4 or not regular or sum(map(len, pieces)) % 4:
        raise InvalidBase64("b64 is not base64: it has spaces in it; a + becomes one where a form is decoded.")
    return "".join(pieces)


def _kind(given: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(given), "a number")


def _otherwise(given: str, strange: re.Match[str]) -> str:
    """What a text is that is not base64."""
    if _BYTES_LITERAL.match(given):
        return "these are bytes as Python prints them; decode them to text first"
    if _ADDRESS.match(given):
        return "this is an address, and none is fetched; send the image itself"
    if len(given) <= _LONGEST_FILE_NAME and _FILE_NAME.fullmatch(given):
        return "this is the name of a file; send what is in it"
    if strange[0] == "%":
        return "it is percent-encoded"
    return f"{strange[0]!r} at character {strange.start() + 1} is in neither of its alphabets"
