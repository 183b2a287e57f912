"""Tests of decoder 2: transparency of every format over the background of the model, and AVIF."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import Any

import numpy
import pytest
from PIL import Image, ImageDraw, features

from engram.config.definition import InputShape
from engram.data.image_limits import ImageLimits
from engram.data.pictures import pixels
from engram.errors import ImageError, ImageTooLarge, NotAnImage, TruncatedImage, UnsupportedImage

SIDE = 24
COLOUR = InputShape(channels=3, height=SIDE, width=SIDE)
GREY = InputShape(channels=1, height=SIDE, width=SIDE)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def drawing() -> Image.Image:
    """A black square of 12 pixels on nothing."""
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle([6, 6, 17, 17], fill=(0, 0, 0, 255))
    return image


DRAWINGS: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "PNG": (drawing(), "PNG", {}),
    "grey PNG": (drawing().convert("LA"), "PNG", {}),
    "palette PNG": (drawing().quantize(4), "PNG", {}),
    "GIF": (drawing(), "GIF", {}),
    "WebP": (drawing(), "WEBP", {"lossless": True}),
    "lossy WebP": (drawing(), "WEBP", {"quality": 90}),
    "TIFF": (drawing(), "TIFF", {}),
    "packed TIFF": (drawing(), "TIFF", {"compression": "tiff_lzw"}),
    "grey TIFF": (drawing().convert("LA"), "TIFF", {}),
    "BMP": (drawing(), "BMP", {}),
    "AVIF": (drawing(), "AVIF", {"quality": 90}),
}


@pytest.mark.parametrize("background", [None, "#ffffff", "#1080f0", "#000000"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_stays_visible_on_any_background(name: str, background: str | None) -> None:
    image, kind, options = DRAWINGS[name]
    data = encoded(image, kind, **options)
    expected = numpy.zeros((SIDE, SIDE, 3), dtype=int)
    expected[:] = tuple(bytes.fromhex((background or "#ffffff")[1:]))
    grey = int(numpy.asarray(Image.fromarray(expected.astype(numpy.uint8)).convert("L"))[0, 0])
    expected[6:18, 6:18] = 0
    found = pixels(data, COLOUR.model_copy(update={"background": background})).astype(int)
    most = 40 if "quality" in options else 1
    assert abs(found - expected).max() <= most
    found = pixels(data, GREY.model_copy(update={"background": background})).astype(int)
    expected[:] = grey
    expected[6:18, 6:18] = 0
    assert abs(found - expected[:, :, :1]).max() <= most
    assert pixels(data, GREY.model_copy(update={"background": background, "convert": True})).max() == found.max()


def test_transparency_is_laid_over_before_the_image_is_resized() -> None:
    stripes = numpy.zeros((SIDE * 2, SIDE * 2, 4), dtype=numpy.uint8)
    stripes[::2] = (0, 0, 0, 255)
    stripes[1::2] = (255, 0, 0, 0)  # red that nobody sees
    found = pixels(encoded(Image.fromarray(stripes), "PNG"), COLOUR)[2:-2]
    assert (found == found[:, :, :1]).all()
    assert 120 <= found.min() <= found.max() <= 135


def test_what_a_first_frame_leaves_free_is_background() -> None:
    small = Image.new("L", (SIDE // 2, SIDE // 2), 90)
    data = bytearray(encoded(small, "GIF"))
    struct.pack_into("<HH", data, 6, SIDE, SIDE)
    found = pixels(bytes(data), COLOUR.model_copy(update={"background": "#1080f0"}))
    assert found[0, 0].tolist() == [90, 90, 90]
    assert found[-1, -1].tolist() == found[0, -1].tolist() == [0x10, 0x80, 0xF0]


def test_grey_gifs_and_their_transparent_grey() -> None:
    values = numpy.tile(numpy.arange(SIDE, dtype=numpy.uint8) * 10, (SIDE, 1))
    data = encoded(Image.fromarray(values), "GIF", transparency=50)
    found = pixels(data, GREY)
    expected = numpy.where(values == 50, 255, values)
    assert (found[:, :, 0] == expected).all()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("side", [1, 3, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_avif(mode: str, side: int) -> None:
    values = numpy.zeros((16, 32, 4), dtype=numpy.uint8)
    values[:8, :, 0], values[:, :8, 1], values[:, :, 3] = 200, 100, 255
    image = Image.fromarray(values).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = side
    data = encoded(image, "AVIF", quality=100, subsampling="4:4:4" if mode != "L" else "4:0:0", exif=exif)
    expected = numpy.asarray(image.convert("RGB"))
    expected = {1: expected, 3: expected[::-1, ::-1], 6: numpy.rot90(expected, -1), 8: numpy.rot90(expected)}[side]
    shape = InputShape(channels=3, height=len(expected), width=expected.shape[1])
    assert abs(pixels(data, shape).astype(int) - expected).max() <= 6
    with pytest.raises(NotAnImage, match="AVIF, which decoder 1"):
        pixels(data, shape, decoder=1)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_that_is_cut_off_or_too_large() -> None:
    values = numpy.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=numpy.uint8)
    data = encoded(Image.fromarray(values), "AVIF")
    for part in (0.1, 0.5, 0.95):
        with pytest.raises(TruncatedImage):
            pixels(data[: int(len(data) * part)], COLOUR)
    for place in range(len(data) - 400, len(data), 7):
        damaged = bytearray(data)
        damaged[place : place + 3] = b"\xff\0\xff"
        with suppress(ImageError):  # and no other error
            pixels(bytes(damaged), COLOUR)
    huge = bytearray(data)
    struct.pack_into(">II", huge, huge.index(b"ispe") + 8, 60_000, 60_000)
    with pytest.raises(ImageTooLarge):
        pixels(bytes(huge), COLOUR)
    with pytest.raises(ImageTooLarge):
        pixels(data, COLOUR, ImageLimits(max_pixels=1000))


def test_avif_without_a_codec_is_said_to_be_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features.modules, "avif", ("PIL._no_such_module", None))
    with pytest.raises(UnsupportedImage, match="AVIF is not supported"):
        pixels(b"\0\0\0\x20ftypavif\0\0\0\0avifmif1" + bytes(99), COLOUR)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
        (b"8BPS" + bytes(40), "PSD"),
        (b"PK\3\4" + bytes(40), "zip archive"),
    ],
)
@pytest.mark.parametrize("decoder", [1, 2])
def test_other_formats_are_named(data: bytes, words: str, decoder: int) -> None:
    with pytest.raises(NotAnImage, match=words):
        pixels(data, COLOUR, decoder=decoder)
