"""Tests of what is counted in an encoded image before it is decoded."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engram.config.definition import InputShape
from engram.data.cost.jpeg import next_marker
from engram.data.cost.measure import measure
from engram.data.image_limits import ImageLimits
from engram.data.images import decode
from engram.errors import ImageError, ImageTooCostly, ImageTooLarge
from testing.data.costly import (
    bmp_of_runs,
    gif_with,
    jpeg_of_scans,
    jpeg_segments,
    jpeg_with,
    png_chunk,
    png_with,
    tiff_of,
    tiff_of_strips,
    tiff_of_tiles,
)

SHAPE = InputShape(channels=3, height=16, width=16, convert=True)
EMPTY_CHUNK = b"ABCD" + bytes(4)
ROW = zlib.compress(bytes(16))
TAGS = [
    *((256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)),
    *((278, 3, 1, 16), (273, 4, 1, 8), (279, 4, 1, 256)),
]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def test_the_scans_of_a_jpeg_are_counted() -> None:
    data = jpeg_of_scans(20)
    assert decode(data, SHAPE, ImageLimits(max_scans=20)).float().mean() == 128
    with pytest.raises(ImageTooCostly, match="more than 19 scans"):
        decode(data, SHAPE, ImageLimits(max_scans=19))
    with pytest.raises(ImageTooCostly, match="more than 500 scans"):
        decode(jpeg_of_scans(501), SHAPE)


def test_what_a_decoder_passes_over_is_no_scan() -> None:
    scan = jpeg_segments(jpeg_of_scans(20))[-1][1]
    thumbnail = segment(0xE1, b"Exif\0\0" + scan * 5)
    codes_with_restarts = encoded(Image.effect_noise((64, 64), 90), "JPEG", restart_marker_blocks=1, quality=95)
    assert codes_with_restarts.count(b"\xff\xd1") > 3
    one = ImageLimits(max_scans=1)
    for data in (jpeg_with(thumbnail), jpeg_with(b"") + scan * 5, codes_with_restarts):
        assert measure(data, SHAPE, one).light
        assert decode(data, SHAPE, one).shape == (3, 16, 16)


def test_what_pillow_looks_into_is_looked_into() -> None:
    hidden = segment(0xF0, segment(0xFE, b"x") * 100)
    with pytest.raises(ImageTooCostly):
        measure(jpeg_with(hidden), SHAPE, ImageLimits(max_parts=99))


MANY: dict[str, tuple[Callable[[int], bytes], int]] = {
    "comments of a JPEG": (lambda count: jpeg_with(segment(0xFE, b"x") * count), 9),
    "tables of a JPEG": (lambda count: jpeg_with(segment(0xC4, b"") * count), 9),
    "restart intervals of a JPEG": (lambda count: jpeg_with(segment(0xDD, b"\0\0") * count), 9),
    "chunks of a PNG": (lambda count: png_with(png_chunk(b"teSt") * count), 3),
    "pixel chunks of a PNG": (lambda count: png_with(png_chunk(b"IDAT") * count), 3),
    "blocks of a GIF": (lambda count: gif_with(b"!\xfe" + b"\1x" * count + b"\0"), 1),
    "strips of a TIFF": (lambda count: tiff_of_strips(count, ROW), 9),
    "strips of a BigTIFF": (lambda count: tiff_of_strips(count, ROW, big=True), 9),
    "tags of a TIFF": (
        lambda count: tiff_of([*TAGS, *((1000 + one, 3, 1, 5) for one in range(count))], bytes(256)),
        10,
    ),
    "chunks of a WebP": (
        lambda count: (
            encoded(Image.new("RGB", (16, 16)), "WEBP", exif=b"II*\0\x08\0\0\0\0\0") + count * b"ABCD\0\0\0\0"
        ),
        3,
    ),
}
"""Images of very many parts, and how many more there are at most."""


@pytest.mark.parametrize("what", MANY)
def test_the_parts_of_an_image_are_counted(what: str) -> None:
    make, others = MANY[what]
    assert measure(make(100), SHAPE, ImageLimits(max_parts=100 + others)).seconds < 0.1
    with pytest.raises(ImageTooCostly, match="more than 99 segments, chunks, blocks, strips or tiles"):
        measure(make(100), SHAPE, ImageLimits(max_parts=99))
    if "tags" not in what:  # there cannot be so many
        with pytest.raises(ImageTooCostly, match="more than 100000 segments"):
            decode(make(100_001), SHAPE)


def test_strips_that_share_their_bytes_count_for_each() -> None:
    data = tiff_of_strips(100, zlib.compress(bytes(16)).ljust(10_000, b"\0"))
    assert len(data) < 12_000
    with pytest.raises(ImageTooLarge, match="have 1000000 bytes together; 999999 are allowed"):
        decode(data, SHAPE, ImageLimits(max_bytes=999_999))
    assert decode(data, SHAPE, ImageLimits(max_bytes=1_000_000)).max() == 0


def test_a_strip_without_a_length_reaches_to_the_next_one() -> None:
    data = tiff_of_strips(5000, ROW, lengths_said=False)
    assert len(data) < 50_000
    with pytest.raises(ImageTooLarge, match="bytes together"):
        decode(data, SHAPE)
    assert measure(tiff_of_strips(5, ROW, lengths_said=False), SHAPE).light


def test_tiles_far_larger_than_the_image_cost_what_they_hold() -> None:
    few, many = (measure(tiff_of_tiles(count, 512), SHAPE) for count in (1, 100))
    assert 50 * few.seconds < many.seconds


def test_directories_that_lead_in_a_circle_or_on_and_on_are_not_followed() -> None:
    body = bytes(range(256))
    plain = tiff_of(TAGS, body)
    circle = tiff_of(TAGS, body, after=8 + 256)
    directory = plain[8 + 256 : -8]
    chain = plain[:-8] + b"".join(
        struct.pack("<I", 8 + 256 + (one + 1) * (len(directory) + 4)) + directory for one in range(100_000)
    )
    for data in (plain, circle, chain):
        assert measure(data, SHAPE, ImageLimits(max_parts=20)).light
        assert decode(data, SHAPE)[0].flatten().tolist() == list(body)


def test_tags_that_share_the_same_values_would_fill_the_memory() -> None:
    shared = [(1000 + one, 7, 2**20, 8) for one in range(5000)]
    with pytest.raises(ImageTooCostly, match="bytes of memory"):
        measure(tiff_of([*TAGS, *shared], bytes(2**20)), SHAPE)
    exif = tiff_of([(0x112, 5, 2**20, 8)], struct.pack("<II", 1, 3) * 2**20)
    assert not measure(png_with(png_chunk(b"eXIf", exif)), SHAPE).light
    few = tiff_of([(0x112, 5, 7000, 26)], b"") + struct.pack("<II", 1, 3) * 7000
    assert measure(jpeg_with(segment(0xE1, b"Exif\0\0" + few)), SHAPE).seconds > 0.03


HEAVY: dict[str, Callable[[], bytes]] = {
    "scans": lambda: jpeg_of_scans(400, 4000),
    "no end mark": lambda: jpeg_of_scans(20, 3000)[:-2],
    "restarts without number": lambda: jpeg_with(b"")[:-2] + b"\xff\xd1" * 4_000_000 + b"\xff\xd9",
    "a film": lambda: encoded(Image.new("RGB", (16, 16)), "AVIF"),
    "texts": lambda: png_with(png_chunk(b"zTXt", b"\0\0" + zlib.compress(bytes(2**20 - 1))) * 300),
    "EXIF in many pieces": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(900)) * 5000),
    "tables": lambda: jpeg_with(segment(0xDB, bytes(65_000)) * 400),
    "what is between segments": lambda: jpeg_with(bytes(8_000_000)),
    "tiles": lambda: tiff_of_tiles(60, 2048),
    "runs": lambda: bmp_of_runs(4000, 4000, b"\1\5\0\0" * 4000),
    "noise of arithmetic coding": lambda: jpeg_of_scans(20, 2000).replace(b"\xff\xc2\0", b"\xff\xca\0"),
    "many pixels": lambda: encoded(Image.new("RGB", (7000, 7000)), "PNG"),
    "a format of which nothing is known": lambda: b"nothing",
}


@pytest.mark.parametrize("what", HEAVY)
def test_what_may_take_long_is_not_light(what: str) -> None:
    assert not measure(HEAVY[what](), SHAPE).light


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("JPEG", "RGB", {"quality": 95, "progressive": True}),
        ("PNG", "RGB", {"compress_level": 1}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("WEBP", "RGB", {"method": 0}),
    ],
)
def test_the_photographs_of_telephones_are_light(kind: str, mode: str, options: dict[str, object]) -> None:
    cost = measure(encoded(Image.new(mode, (4000, 3000)), kind, **options), SHAPE)
    assert cost.light
    assert cost.seconds > 0.05
    assert cost.memory > 12_000_000


def test_what_would_take_too_much_memory_is_refused() -> None:
    tall = png_with(b"", 1, 4_000_000)  # resized along its rows it becomes 1024 x 4,000,000 in between
    with pytest.raises(ImageTooCostly, match="bytes of memory; 3221225472 are allowed"):
        decode(tall, InputShape(channels=1, height=16, width=1024))
    flat = encoded(Image.new("RGB", (1000, 1000)), "PNG")
    with pytest.raises(ImageTooCostly):
        decode(flat, SHAPE, ImageLimits(max_memory=4_000_000))
    assert decode(flat, SHAPE).max() == 0


@given(st.binary(max_size=200).map(lambda data: data.replace(b"a", b"\xff")), st.integers(0, 210))
def test_the_next_marker_is_what_a_plain_search_finds(data: bytes, start: int) -> None:
    plain = next(
        (
            place
            for place in range(start, len(data) - 1)
            if data[place] == 0xFF and data[place + 1] not in (0, 0xFF, *range(0xD0, 0xD8))
        ),
        -1,
    )
    assert next_marker(data, start) == plain


def test_a_marker_is_found_wherever_blocks_of_the_search_end() -> None:
    for place in (4094, 4095, 4096, 4095 + 8191, 4095 + 8192, 3_000_000):
        assert next_marker(bytes(place) + b"\xff\xda" + bytes(10), 0) == place


SEEDS = [
    *(
        encoded(Image.effect_noise((20, 16), 90).convert("RGB"), kind)
        for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
    ),
    encoded(Image.effect_noise((20, 16), 90), "GIF"),
    encoded(Image.effect_noise((20, 16), 90), "AVIF"),
    jpeg_of_scans(20),
    tiff_of_strips(5, ROW, big=True),
]


@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_damage_costs_something_or_is_refused(seed: bytes, changes: list[tuple[float, int]], end: float) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        cost = measure(bytes(data[: int(len(data) * end)]), SHAPE)
    except ImageError:
        return
    assert cost.seconds >= 0
    assert cost.memory >= 0
