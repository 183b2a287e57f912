"""Tests of BMP under decoder 2: every depth, masks of bits, run lengths and transparency."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from engram.config.definition import InputShape
from engram.data.pictures import pixels
from engram.errors import TruncatedImage, UnsupportedImage
from testing.data.encoded_images import bmp_file, packed

HEIGHT, WIDTH = 9, 13
SIZE = (WIDTH, HEIGHT)
COLOUR = InputShape(channels=3, height=HEIGHT, width=WIDTH)
GREY = InputShape(channels=1, height=HEIGHT, width=WIDTH)
BLUE = COLOUR.model_copy(update={"background": "#1080f0"})
RANDOM = numpy.random.default_rng(1)


def worst(data: bytes, expected: Any, shape: InputShape = COLOUR) -> int:
    return int(abs(pixels(data, shape).astype(int) - numpy.asarray(expected).reshape(HEIGHT, WIDTH, -1)).max())


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(bits: int, top_down: bool) -> None:
    stored = RANDOM.integers(0, 1 << bits, (HEIGHT, WIDTH, 1))
    palette = RANDOM.integers(0, 256, (1 << bits, 4), dtype=numpy.uint8)
    data = bmp_file(packed(stored, bits), SIZE, bits, palette=palette.tobytes(), top_down=top_down)
    assert worst(data, palette[stored[:, :, 0], 2::-1]) == 0


def test_a_palette_of_greys_in_any_order_is_grey() -> None:
    stored = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 1))
    greys = RANDOM.permutation(256).astype(numpy.uint8)
    data = bmp_file(packed(stored, 8), SIZE, 8, palette=numpy.repeat(greys, 4).tobytes())
    assert worst(data, greys[stored[:, :, 0]], GREY) == 0


def test_run_lengths_of_8_and_4_bits() -> None:
    palette = RANDOM.integers(0, 256, (16, 4), dtype=numpy.uint8)
    stored = RANDOM.integers(0, 16, (HEIGHT, WIDTH))
    for bits, compression in ((8, 1), (4, 2)):
        rows = [b"".join(bytes([1, value << (8 - bits)]) for value in row.tolist()) for row in stored[::-1]]
        data = bmp_file(b"\0\0".join(rows) + b"\0\1", SIZE, bits, compression=compression, palette=palette.tobytes())
        assert worst(data, palette[stored, 2::-1]) == 0


@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, (0xF800, 0x07E0, 0x001F)),
        (16, (0x7C00, 0x03E0, 0x001F)),
        (16, (0x0F00, 0x00F0, 0x000F, 0xF000)),
        (16, (0x7C00, 0x03E0, 0x001F, 0x8000)),
        (32, (0xFF0000, 0x00FF00, 0x0000FF)),
        (32, (0xFF0000, 0x00FF00, 0x0000FF, 0xFF000000)),
        (32, (0x0000FF, 0x00FF00, 0xFF0000, 0xFF000000)),
        (32, (0x3FF00000, 0x000FFC00, 0x000003FF, 0xC0000000)),
    ],
)
def test_masks_of_bits(bits: int, masks: tuple[int, ...], header: int, top_down: bool) -> None:
    if len(masks) == 4 and header < 56:
        pytest.skip("these headers have no mask of opacity")
    stored = RANDOM.integers(0, 1 << bits, (HEIGHT, WIDTH), dtype=numpy.uint64)
    parts = [(stored & mask) / mask for mask in masks]
    words = (*masks, 0)[:4] if header >= 56 else masks
    rows = [row.astype(f"<u{bits // 8}").tobytes() for row in stored]
    data = bmp_file(rows, SIZE, bits, compression=3, masks=words, header=header, top_down=top_down)
    opacity = parts[3] if len(masks) == 4 else numpy.ones_like(parts[0])
    back = numpy.array([0x10, 0x80, 0xF0]) / 255
    colours = numpy.stack(parts[:3], axis=2)
    expected = colours * opacity[:, :, None] + back * (1 - opacity[:, :, None])
    assert worst(data, numpy.rint(expected * 255), BLUE) <= 1


@pytest.mark.parametrize("bits", [24, 32])
def test_plain_colours(bits: int) -> None:
    stored = RANDOM.integers(0, 256, (HEIGHT, WIDTH, bits // 8), dtype=numpy.uint8)
    if bits == 32:
        stored[:, :, 3] = 0  # unused, and no transparency
    assert worst(bmp_file([row.tobytes() for row in stored], SIZE, bits), stored[:, :, 2::-1]) == 0


def test_the_fourth_byte_is_opacity_where_anything_is_in_it() -> None:
    stored = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 4), dtype=numpy.uint8)
    opacity = stored[:, :, 3:] / 255
    expected = numpy.rint(stored[:, :, 2::-1] * opacity + 255 * (1 - opacity))
    assert worst(bmp_file([row.tobytes() for row in stored], SIZE, 32), expected) <= 1


@pytest.mark.parametrize("decoder", [1, 2])
@pytest.mark.parametrize(
    ("bits", "compression", "header", "words"),
    [
        (8, 4, 40, "compression JPEG"),
        (8, 5, 40, "compression PNG"),
        (24, 4, 64, "OS/2"),
        (8, 0, 16, "OS/2"),
        (2, 0, 40, "2 bits a pixel"),
        (64, 0, 40, "64 bits a pixel"),
    ],
)
def test_a_kind_that_is_not_read_says_so(bits: int, compression: int, header: int, words: str, decoder: int) -> None:
    data = bmp_file(bytes(800), SIZE, bits, compression=compression, header=header)
    with pytest.raises(UnsupportedImage, match=words):
        pixels(data, COLOUR, decoder=decoder)


def test_masks_with_holes_are_not_read() -> None:
    data = bmp_file(bytes(800), SIZE, 32, compression=3, masks=(0xF0F, 0xF0, 0xF000), header=40)
    with pytest.raises(UnsupportedImage, match="side by side"):
        pixels(data, COLOUR)


@pytest.mark.parametrize("decoder", [1, 2])
@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_a_file_that_is_cut_off_is_called_so(bits: int, decoder: int) -> None:
    palette = bytes(range(200)) + bytes(824) if bits == 8 else b""
    data = bmp_file([bytes(WIDTH * bits // 8)] * HEIGHT, SIZE, bits, palette=palette)
    for end in (20, 40, len(data) - 20):
        with pytest.raises(TruncatedImage):
            pixels(data[:end], COLOUR, decoder=decoder)
