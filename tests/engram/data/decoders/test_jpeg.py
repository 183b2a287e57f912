"""Tests of JPEG: kinds that are not read, files without their end mark, grey, and inverted CMYK."""

from __future__ import annotations

import io
from typing import Any

import numpy
import pytest
from PIL import Image

from engram.config.definition import InputShape
from engram.data.pictures import pixels
from engram.errors import ImageError, TruncatedImage, UnsupportedImage, WrongChannels
from testing.data.encoded_images import lossless_jpeg

HEIGHT, WIDTH = 40, 56
GREY = InputShape(channels=1, height=HEIGHT, width=WIDTH)
COLOUR = InputShape(channels=3, height=HEIGHT, width=WIDTH)

SMOOTH = numpy.asarray(
    Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=numpy.uint8)).resize(
        (WIDTH, HEIGHT), Image.Resampling.BICUBIC
    )
)
FLAT = numpy.full((HEIGHT, WIDTH, 3), 128, dtype=numpy.uint8)
CORNER = numpy.full((HEIGHT, WIDTH, 3), 20, dtype=numpy.uint8)
CORNER[:9, :9] = (250, 30, 60)

WRITTEN: list[dict[str, Any]] = [
    {},
    {"quality": 100, "subsampling": 0},
    {"optimize": True},
    {"restart_marker_blocks": 3},
    {"progressive": True},
    {"progressive": True, "quality": 30, "restart_marker_blocks": 2},
    {"progressive": True, "subsampling": 2, "quality": 95, "optimize": True},
]


def encoded(values: Any, kind: str = "JPEG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("decoder", [1, 2])
@pytest.mark.parametrize("options", WRITTEN, ids=str)
@pytest.mark.parametrize("scene", [SMOOTH, FLAT, CORNER], ids=["smooth", "flat", "corner"])
def test_only_the_end_mark_may_be_missing(scene: Any, options: dict[str, Any], decoder: int) -> None:
    whole = encoded(scene, **options)
    expected = pixels(whole, COLOUR, decoder=decoder)
    for data in (whole[:-2], whole[:-1], whole + b"more\xff\xd8\xff\xd9"):
        assert (pixels(data, COLOUR, decoder=decoder) == expected).all()
    refused = 0
    for length in [*range(1, 12), *range(12, len(whole) - 4, 7)]:
        try:
            # A cut through the padding of the last byte, or through what can only be one thing, is none.
            assert (pixels(whole[: -2 - length], COLOUR, decoder=decoder) == expected).all()
        except TruncatedImage:
            refused += 1
    assert refused > 10


def test_zeros_that_a_file_was_filled_up_with_do_not_complete_it() -> None:
    whole = encoded(SMOOTH)
    assert (pixels(whole[:-2] + bytes(5000), COLOUR) == pixels(whole, COLOUR)).all()
    with pytest.raises(TruncatedImage):
        pixels(whole[:-100] + bytes(5000), COLOUR)


def test_scans_that_are_missing_altogether_are_missed() -> None:
    whole = encoded(SMOOTH, progressive=True)
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for at in scans[1:]:
        start = whole.rindex(b"\xff\xc4", 0, at) if b"\xff\xc4" in whole[at - 60 : at] else at
        with pytest.raises(TruncatedImage):
            pixels(whole[:start], COLOUR)


@pytest.mark.parametrize("decoder", [1, 2])
def test_kinds_that_are_not_read_say_so(decoder: int) -> None:
    values = numpy.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH, 1))
    whole = encoded(SMOOTH)
    for data, words in (
        (lossless_jpeg(values, 12), "12 bits"),
        (whole.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"), "12 bits"),
        (whole.replace(b"\xff\xc0", b"\xff\xc5"), "hierarchical"),
        (whole.replace(b"\xff\xc0", b"\xff\xcb"), "lossless"),
    ):
        with pytest.raises(UnsupportedImage, match=words):
            pixels(data, COLOUR, decoder=decoder)


def test_lossless_jpeg_is_read_or_said_not_to_be() -> None:
    values = numpy.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 1))
    data = lossless_jpeg(values, 8)
    try:
        assert (pixels(data, GREY) == values).all()
    except UnsupportedImage:  # with an earlier libjpeg
        with pytest.raises(UnsupportedImage, match="lossless"):
            pixels(data, GREY)
    with pytest.raises(ImageError):
        pixels(data[: len(data) // 2], GREY)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 30}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("WEBP", {"quality": 20}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("AVIF", {"quality": 50}),
    ],
)
def test_grey_that_was_stored_as_colour_is_grey(kind: str, options: dict[str, Any]) -> None:
    grey = numpy.repeat(SMOOTH[:, :, :1], 3, axis=2)
    data = encoded(grey, kind, **options)
    found = pixels(data, GREY).astype(int)
    assert abs(found - grey[:, :, :1]).mean() < (6 if options.get("quality") else 0.5)
    assert (found == pixels(data, GREY.model_copy(update={"convert": True}))).all()
    coloured = grey.copy()
    coloured[10:30, 10:30, 2] //= 2
    with pytest.raises(WrongChannels, match="the image is colour"):
        pixels(encoded(coloured, kind, **options), GREY)
    if kind != "AVIF":
        with pytest.raises(WrongChannels):
            pixels(data, GREY, decoder=1)


def test_a_colour_picture_that_was_stored_as_grey_is_read() -> None:
    grey = SMOOTH[:, :, 0]
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        data = encoded(grey, kind)
        found = pixels(data, COLOUR)
        assert (found == pixels(data, GREY)).all()
        with pytest.raises(WrongChannels, match="the image is grey"):
            pixels(data, COLOUR, decoder=1)


def test_cmyk_is_inverted_as_in_every_jpeg() -> None:
    inks = Image.fromarray(SMOOTH).convert("CMYK")
    out = io.BytesIO()
    inks.save(out, "JPEG", quality=100, subsampling=0)
    assert abs(pixels(out.getvalue(), COLOUR).astype(int) - SMOOTH).mean() < 2


def read(data: bytes, shape: InputShape) -> bytes | tuple[str, str]:
    try:
        return pixels(data, shape).tobytes()
    except ImageError as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("options", [*WRITTEN, {"comment": b"by hand"}], ids=str)
@pytest.mark.parametrize("scene", [SMOOTH, SMOOTH[:, :, 0]], ids=["colour", "grey"])
def test_what_says_nothing_but_its_pixels_is_read_as_what_says_more(scene: Any, options: dict[str, Any]) -> None:
    """A small image without further segments is handed to the decoder past the reader, whole or damaged."""
    whole, random, found = encoded(scene, **options), numpy.random.default_rng(len(options)), set()
    start, more = whole.index(b"\xff\xda"), b"\xff\xe9\x00\x06note"
    for number in range(120):
        plain = bytearray(whole)
        if number:
            place = random.integers(3, start + 12 if number % 3 else len(plain))
            plain[place] ^= 1 << random.integers(8)
        if number % 7 == 6:
            del plain[random.integers(3, start) : random.integers(start, len(plain) - 2)]
        given = bytes(plain)
        for shape in (GREY.model_copy(update={"convert": True}), COLOUR):
            outcome = read(given, shape)
            assert outcome == read(given[:2] + more + given[2:], shape), number
            found.add(type(outcome))
    assert found == {bytes, tuple}
