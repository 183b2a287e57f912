"""Tests of PNG: every depth and colour type, colour keys, large texts and profiles, and orientation."""

from __future__ import annotations

import io
import os
import zlib
from typing import Any

import numpy
import pytest
from PIL import Image

from engram.config.definition import InputShape
from engram.data.pictures import pixels
from engram.errors import ImageError, TruncatedImage, WrongChannels
from testing.data.encoded_images import Samples, png_chunk, png_file

HEIGHT, WIDTH = 11, 19
GREY = InputShape(channels=1, height=HEIGHT, width=WIDTH)
COLOUR = InputShape(channels=3, height=HEIGHT, width=WIDTH)
BLUE = COLOUR.model_copy(update={"background": "#1080f0"})

KINDS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
"""Samples and depths of each colour type but palettes."""


def noise(depth: int, samples: int) -> Samples:
    found = numpy.random.default_rng(depth + samples).integers(0, 1 << depth, (HEIGHT, WIDTH, samples))
    found[0, 0], found[0, 1] = 0, (1 << depth) - 1
    return found


def over(colours: Any, opacity: Any, background: tuple[int, int, int]) -> Any:
    """Colours (H, W, 1 or 3) and opacity, from 0 to 1, over a background: 0 to 255 (H, W, 3)."""
    back = numpy.array(background) / 255
    return numpy.rint((colours * opacity + back * (1 - opacity)) * 255)


def worst(data: bytes, expected: Any, shape: InputShape, decoder: int = 2) -> int:
    found = pixels(data, shape, decoder=decoder).astype(int)
    return int(abs(found - numpy.asarray(expected).reshape(HEIGHT, WIDTH, -1)).max())


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("colour", "depth"), [(kind, depth) for kind, (_, depths) in KINDS.items() for depth in depths]
)
def test_every_colour_type_and_depth(colour: int, depth: int, interlaced: bool) -> None:
    samples = noise(depth, KINDS[colour][0])
    part = samples / ((1 << depth) - 1)
    colours, opacity = (part[:, :, :-1], part[:, :, -1:]) if colour >= 4 else (part, numpy.ones((HEIGHT, WIDTH, 1)))
    data = png_file(samples, depth, colour, interlaced=interlaced)
    assert worst(data, over(colours, opacity, (255, 255, 255)), COLOUR) <= (colour >= 4)
    assert worst(data, over(colours, opacity, (0x10, 0x80, 0xF0)), BLUE) <= (colour >= 4)
    if colour in (0, 4):
        assert worst(data, over(colours, opacity, (255, 255, 255))[:, :, :1], GREY) <= (colour == 4)


@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_a_colour_key_is_transparent_and_its_neighbours_are_not(colour: int, depth: int) -> None:
    samples = noise(depth, KINDS[colour][0])
    key = samples[4, 5].copy()
    samples[4, 6] = key
    samples[4, 7] = key ^ 1  # which has the same high byte, of 16 bits
    clear = (samples == key).all(axis=2, keepdims=True)
    # Only as many bits count as a sample has.
    stored = [int(value) | (0xA500 if depth == 8 else 0) for value in key]
    chunk = png_chunk(b"tRNS", b"".join(value.to_bytes(2, "big") for value in stored))
    part = samples / ((1 << depth) - 1)
    expected = over(part, numpy.where(clear, 0.0, 1.0), (0x10, 0x80, 0xF0))
    assert worst(png_file(samples, depth, colour, chunk), expected, BLUE) == 0


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes(depth: int) -> None:
    samples = noise(depth, 1)
    palette = numpy.random.default_rng(3).integers(0, 256, (1 << depth, 3), dtype=numpy.uint8)
    opacity = numpy.random.default_rng(4).integers(0, 256, max(1, (1 << depth) - 1), dtype=numpy.uint8)
    chunks = [png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"tRNS", opacity.tobytes())]
    colours = palette[samples[:, :, 0]]
    assert worst(png_file(samples, depth, 3, chunks[0]), colours, COLOUR) == 0
    whole = numpy.append(opacity, 255)[samples[:, :, 0]][:, :, None] / 255
    expected = over(colours / 255, whole, (0x10, 0x80, 0xF0))
    assert worst(png_file(samples, depth, 3, *chunks), expected, BLUE) <= 1


def test_colours_of_a_palette_that_are_all_grey_are_grey() -> None:
    samples = noise(4, 1)
    ramp = numpy.random.default_rng(5).integers(0, 256, (16, 1), dtype=numpy.uint8).repeat(3, axis=1)
    data = png_file(samples, 4, 3, png_chunk(b"PLTE", ramp.tobytes()))
    assert worst(data, ramp[samples[:, :, 0], :1], GREY) == 0
    with pytest.raises(WrongChannels):
        pixels(data, GREY, decoder=1)
    ramp[int(samples[3, 3, 0])] += numpy.array([0, 0, 1], dtype=numpy.uint8)
    with pytest.raises(WrongChannels, match="the image is colour"):
        pixels(png_file(samples, 4, 3, png_chunk(b"PLTE", ramp.tobytes())), GREY)


def profile() -> bytes:
    return b"profile\0\0" + zlib.compress(os.urandom(2_000_000))


EXCESS = {
    "text": [png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 2_000_000))],
    "international text": [png_chunk(b"iTXt", b"workflow\0\1\0en\0key\0" + zlib.compress(b"x" * 2_000_000))],
    "profile": [png_chunk(b"iCCP", profile())],
    "seventy texts": [png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 1_000_000))] * 70,
}


@pytest.mark.parametrize("decoder", [1, 2])
@pytest.mark.parametrize("name", EXCESS)
def test_texts_and_profiles_of_any_length_do_not_matter(name: str, decoder: int) -> None:
    samples = noise(8, 3)
    plain = png_file(samples, 8, 2)
    for data in (png_file(samples, 8, 2, *EXCESS[name]), plain[:-12] + b"".join(EXCESS[name]) + plain[-12:]):
        assert worst(data, samples, COLOUR, decoder) == 0


@pytest.mark.parametrize("decoder", [1, 2])
@pytest.mark.parametrize("where", ["eXIf", "XMP", "raw profile"])
def test_orientation_is_kept_wherever_it_is_said(where: str, decoder: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = exif.tobytes()
    chunk = {
        "eXIf": png_chunk(b"eXIf", data[6:]),
        "XMP": png_chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>'),
        "raw profile": png_chunk(
            b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(f"\nexif\n{len(data):8}\n{data.hex()}\n".encode())
        ),
    }[where]
    samples = noise(16, 2)
    shape = InputShape(channels=1, height=WIDTH, width=HEIGHT, convert=True)
    for bits, colour in ((16, 0), (8, 0)):
        part = samples[:, :, :1] >> (16 - bits)
        expected = numpy.rint(part[:, :, 0] / ((1 << bits) - 1) * 255)[::-1].T
        found = pixels(png_file(part, bits, colour, chunk), shape, decoder=decoder)[:, :, 0]
        assert (found == expected).all()
    assert pixels(png_file(samples, 16, 4, chunk), shape, decoder=decoder).shape == (WIDTH, HEIGHT, 1)


def test_texts_that_are_called_like_pillows_own_notes_do_not_matter() -> None:
    samples = noise(8, 3)
    for name in (b"transparency", b"interlace", b"bbox", b"gamma"):
        assert worst(png_file(samples, 8, 2, png_chunk(b"tEXt", name + b"\0text")), samples, COLOUR) == 0


def test_an_animation_is_its_still_image() -> None:
    frames = [Image.fromarray(noise(8, 3).astype(numpy.uint8)), Image.new("RGB", (WIDTH, HEIGHT), "red")]
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:])
    assert worst(out.getvalue(), noise(8, 3), COLOUR) == 0


@pytest.mark.parametrize("decoder", [1, 2])
def test_damage_is_called_damage(decoder: int) -> None:
    data = png_file(noise(16, 4), 16, 6, *EXCESS["text"])
    for end in (60, len(data) // 2, len(data) - 30):
        with pytest.raises(TruncatedImage):
            pixels(data[:end], COLOUR, decoder=decoder)


def read(data: bytes, shape: InputShape) -> bytes | tuple[str, str]:
    try:
        return pixels(data, shape).tobytes()
    except ImageError as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize(("samples", "colour"), [(1, 0), (3, 2)])
def test_what_says_nothing_but_its_pixels_is_read_as_what_says_more(samples: int, colour: int) -> None:
    """A small image without further chunks is handed to the decoder past the reader, whole or damaged."""
    random, compact = numpy.random.default_rng(samples), io.BytesIO()
    Image.fromarray(noise(8, samples).astype(numpy.uint8).squeeze()).save(compact, "PNG")  # its rows have filters
    more, found = png_chunk(b"tEXt", b"note\0text"), set()
    for number in range(150):
        plain = bytearray(png_file(noise(8, samples), 8, colour) if number % 2 else compact.getvalue())
        if number > 5:
            place = random.integers(8, len(plain))
            plain[place] ^= 1 << random.integers(8)
        if number % 7 == 6:
            del plain[random.integers(33, len(plain)) :]
        given = bytes(plain)
        for shape in (GREY, COLOUR):
            outcome = read(given, shape)
            assert outcome == read(given[:33] + more + given[33:], shape), number
            found.add(type(outcome))
    assert found == {bytes, tuple}
