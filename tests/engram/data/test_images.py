"""Tests of decoding images of every format, and damaged, huge and wrong ones."""

import io
import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engram.config.definition import InputShape
from engram.data.images import ImageLimits, decode
from engram.errors import EmptyImage, ImageError, ImageTooLarge, NotAnImage, TruncatedImage, WrongChannels

GREY = InputShape(channels=1, height=12, width=10)
COLOUR = InputShape(channels=3, height=12, width=10)
EITHER = InputShape(channels=3, height=12, width=10, convert=True)

RANDOM = numpy.random.default_rng(0)
GREY_PIXELS = RANDOM.integers(0, 256, (12, 10), dtype=numpy.uint8)
COLOUR_PIXELS = RANDOM.integers(0, 256, (12, 10, 3), dtype=numpy.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_give_the_very_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(Image.fromarray(COLOUR_PIXELS), kind, **options), COLOUR)
    assert pixels.dtype == torch.uint8
    assert pixels.is_contiguous()
    assert torch.equal(pixels, torch.from_numpy(COLOUR_PIXELS).permute(2, 0, 1))


def test_grey_stays_grey() -> None:
    assert torch.equal(decode(encoded(Image.fromarray(GREY_PIXELS)), GREY)[0], torch.from_numpy(GREY_PIXELS))


def test_jpeg_is_read() -> None:
    flat = Image.new("RGB", (10, 12), (200, 100, 50))
    pixels = decode(encoded(flat, "JPEG", quality=95), COLOUR).float().mean(dim=(1, 2))
    assert torch.allclose(pixels, torch.tensor([200.0, 100.0, 50.0]), atol=4)


def test_the_first_frame_of_a_gif_counts() -> None:
    frames = [Image.new("RGB", (10, 12), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, COLOUR)[:, 0, 0].tolist() == [255, 0, 0]


def test_sixteen_bit_grey_is_scaled() -> None:
    values = numpy.linspace(0, 65535, 120).astype(numpy.uint16).reshape(12, 10)
    for kind in ("PNG", "TIFF"):
        pixels = decode(encoded(Image.fromarray(values), kind), GREY)
        assert torch.equal(pixels[0], torch.from_numpy(numpy.round(values / 257).astype(numpy.uint8)))


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(GREY_PIXELS).convert("1", dither=Image.Dither.NONE)
    assert set(decode(encoded(bits), GREY).flatten().tolist()) == {0, 255}


def test_cmyk_and_palettes_are_colours() -> None:
    image = Image.new("RGB", (10, 12), (255, 0, 0))
    assert decode(encoded(image.convert("CMYK"), "TIFF"), COLOUR)[:, 3, 3].tolist() == [255, 0, 0]
    assert decode(encoded(image.quantize(8)), COLOUR)[:, 3, 3].tolist() == [255, 0, 0]
    with pytest.raises(WrongChannels):
        decode(encoded(image.quantize(8)), GREY)


@pytest.mark.parametrize(("mode", "shape"), [("LA", GREY), ("RGBA", COLOUR)])
def test_transparency_is_laid_over_a_background_and_is_no_channel(mode: str, shape: InputShape) -> None:
    white = Image.new(mode, (10, 12), (255,) * len(mode))
    white.putalpha(Image.new("L", white.size, 51))
    assert set(decode(encoded(white), shape).flatten().tolist()) == {255}
    assert set(decode(encoded(white), shape, decoder=1).flatten().tolist()) == {51}
    black = shape.model_copy(update={"background": "#000000"})
    assert set(decode(encoded(white), black).flatten().tolist()) == {51}


def test_a_transparent_palette_entry_is_white_or_as_the_decoder_has_it() -> None:
    image = Image.new("P", (10, 12), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    assert decode(encoded(image, transparency=1), COLOUR).min() == 255
    assert decode(encoded(image, transparency=1), COLOUR, decoder=1).max() == 0
    assert decode(encoded(image), COLOUR)[:, 0, 0].tolist() == [200, 100, 50]


def test_exif_turns_the_image_upright() -> None:
    wide = Image.new("L", (12, 10), 0)
    wide.paste(255, (0, 0, 12, 1))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    pixels = decode(encoded(wide, exif=exif.tobytes()), GREY)[0]
    assert pixels[:, -1].min() == 255
    assert pixels[:, :-1].max() == 0


def test_other_sizes_are_resized_with_antialiasing() -> None:
    stripes = numpy.zeros((240, 200), dtype=numpy.uint8)
    stripes[:, ::2] = 255
    pixels = decode(encoded(Image.fromarray(stripes)), GREY)
    assert pixels.shape == (1, 12, 10)
    assert 120 <= int(pixels.min()) <= int(pixels.max()) <= 135


def test_other_channels_are_refused_with_the_way_out_or_converted() -> None:
    grey, colour = encoded(Image.fromarray(GREY_PIXELS)), encoded(Image.fromarray(COLOUR_PIXELS))
    for decoder, data, shape in ((1, grey, COLOUR), (1, colour, GREY), (2, colour, GREY)):
        with pytest.raises(WrongChannels, match=r"input\.convert"):
            decode(data, shape, decoder=decoder)
    assert torch.equal(decode(grey, COLOUR), torch.from_numpy(GREY_PIXELS).expand(3, 12, 10))
    assert torch.equal(decode(grey, EITHER), torch.from_numpy(GREY_PIXELS).expand(3, 12, 10))
    assert torch.equal(decode(colour, EITHER), decode(colour, COLOUR))
    assert decode(colour, InputShape(channels=1, height=12, width=10, convert=True)).shape == (1, 12, 10)


def test_nothing_and_nonsense() -> None:
    with pytest.raises(EmptyImage):
        decode(b"", GREY)
    for nonsense in (
        b"hello",
        b"BM but not a bitmap at all, just text",
        b"<svg/>",
        b"%PDF-1.4",
        b"RIFF1234WEBPnope" * 3,
    ):
        with pytest.raises(NotAnImage):
            decode(nonsense, GREY)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_image_is_called_truncated(kind: str) -> None:
    noise = numpy.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=numpy.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for part in (0.5, 0.9):
        with pytest.raises(TruncatedImage):
            decode(data[: int(len(data) * part)], COLOUR)


def test_huge_headers_are_refused_without_unpacking_or_warning() -> None:
    huge = [
        png_header(30_000, 30_000),
        png_header(10_000, 10_000),  # between Pillow's warning and its error
        b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 10_000, 10_000, 0),
        b"RIFF" + struct.pack("<I", 99) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + (16382).to_bytes(3, "little") * 2,
        encoded(Image.new("1", (7_100, 7_100)), "TIFF", compression="group4"),
    ]
    tracemalloc.start()
    try:
        for data in huge:
            with pytest.raises(ImageTooLarge):  # warnings are errors in these tests
                decode(data, GREY)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert Image.MAX_IMAGE_PIXELS == 89_478_485


def test_limits_are_settable() -> None:
    data = encoded(Image.fromarray(GREY_PIXELS))
    with pytest.raises(ImageTooLarge):
        decode(data, GREY, ImageLimits(max_pixels=119))
    with pytest.raises(ImageTooLarge):
        decode(data, GREY, ImageLimits(max_bytes=20))


def test_threads_do_not_disturb_one_another() -> None:
    data = [encoded(Image.new("RGB", (40, 40), (value, value, value)), "PNG") for value in range(0, 250, 10)] * 8
    with ThreadPoolExecutor(8) as pool:
        found = [int(pixels.max()) for pixels in pool.map(lambda one: decode(one, COLOUR), data)]
    assert found == list(range(0, 250, 10)) * 8


SEEDS = [encoded(Image.fromarray(COLOUR_PIXELS), kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")] + [
    encoded(Image.fromarray(COLOUR_PIXELS), "TIFF", compression="tiff_lzw")
]


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    end=st.floats(0, 1),
)
def test_damage_of_any_kind_is_an_image_error_or_an_image(
    seed: bytes, changes: list[tuple[float, int]], end: float
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    if end < 0.5:
        data = data[: int(len(data) * 2 * end)]
    try:
        pixels = decode(bytes(data), EITHER, ImageLimits(max_pixels=10_000_000))
    except ImageError:
        return
    assert pixels.shape == (3, 12, 10)
