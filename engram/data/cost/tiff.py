"""Cost of a TIFF: the entries of its directory, strips, tiles, and what they are packed with."""

from __future__ import annotations

import numpy
from numpy.typing import NDArray

from engram.data.cost.exif import Directory, directory, sub_directories
from engram.data.cost.tally import Tally
from engram.data.decoders.sizes import check_pixels
from engram.errors import ImageTooLarge

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, STRIP_ROWS, PLANES = 256, 257, 258, 259, 262, 277, 278, 284
STRIPS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES = 273, 279, 322, 323, 324, 325
RAW, LZW, OLD_JPEG, JPEG, DEFLATE, PACKBITS = 1, 5, 6, 7, 8, 32773
OLD_DEFLATE, LZMA, ZSTD, WEBP = 32946, 34925, 50000, 50001

RATES = {
    RAW: 2e-9,
    LZW: 6e-9,
    OLD_JPEG: 10e-9,
    JPEG: 10e-9,
    DEFLATE: 4e-9,
    OLD_DEFLATE: 4e-9,
    PACKBITS: 4e-9,
    LZMA: 10e-9,
    ZSTD: 4e-9,
    WEBP: 30e-9,
}
"""Seconds of one byte that is unpacked, by the compression."""
OTHER_RATE = 60e-9
"""Of fax and old kinds, of which a byte is eight pixels."""
PACKED_RATES = {RAW: 1e-9, LZW: 2e-9, PACKBITS: 2e-9, LZMA: 30e-9}
"""Seconds of one packed byte."""
BATCH = 4 * 2**20
"""Bytes of samples that are interpreted at once."""
BIT_SECONDS = 60e-9
"""Of one sample of neither 8 nor 16 bits."""
SCAN_SECONDS = 0.8e-9
"""Of one byte that is unpacked, in one scan of a JPEG."""


def tiff(data: bytes, tally: Tally) -> None:
    """Add up the first picture of a TIFF, the only one that is read."""
    order, name = ("<", "little") if data[:2] == b"II" else (">", "big")
    big = 43 in data[2:4]
    place = int.from_bytes(data[8:16] if big else data[4:8], name)  # type: ignore[arg-type]  # one of the two names
    found = directory(data, place, order, tally, big=big)
    sub_directories(found, tally)
    tally.memory += 2 * len(data)
    width, height = _one(found, WIDTH, 0), _one(found, HEIGHT, 0)
    check_pixels((width, height), tally.limits.max_pixels)
    samples = min(16, _one(found, SAMPLES, 1))
    depth = min(64, max((1, *found.values(BITS))))
    compression = _one(found, COMPRESSION, 1)
    pieces, area = _pieces(found, width, height, tally.limits.max_pixels)
    if _one(found, PLANES, 1) == 2:
        pieces *= samples
    else:
        area *= samples
    count = min(max(pieces, found.count(STRIPS, TILES)), tally.limits.max_parts + 1)
    tally.part(count, 20e-6 if compression == RAW else 4e-6)
    unpacked = pieces * max(1.0, area * depth / 8)
    tally.seconds += unpacked * RATES.get(compression, OTHER_RATE)
    packed = _packed(found, tally)
    tally.memory += 4 * int(packed.sum())
    tally.seconds += float(packed.sum()) * PACKED_RATES.get(compression, 12e-9)
    if compression in (JPEG, OLD_JPEG):
        tally.seconds += _scans(found, packed) * area * depth / 8 * SCAN_SECONDS
    tally.memory += int(min(unpacked, 2 * area * depth / 8))
    if depth not in (8, 16) and compression in RATES:
        # Numbers of other lengths are taken apart bit by bit, so many at a time.
        tally.seconds += pieces * area * BIT_SECONDS
        tally.memory += int(min(pieces * area, max(BATCH * 8 / depth, width * samples)) * 20)
    grey16 = samples == 1 and depth == 16
    memory = 22 if grey16 or samples in (2, 4) else 14 if samples > 2 else 10
    tally.picture(width, height, memory, 80e-9 if grey16 else 20e-9)


def _one(found: Directory, tag: int, otherwise: int) -> int:
    return next(iter(found.values(tag)), otherwise)


def _pieces(found: Directory, width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """How many strips or tiles cover the picture, and the pixels of one; whatever is more where it may be either."""
    shapes = [(max(1, width), min(max(1, height), max(1, _one(found, STRIP_ROWS, height))))]
    if (across := _one(found, TILE_WIDTH, 0)) and (down := _one(found, TILE_HEIGHT, 0)):
        check_pixels((across, down), max_pixels)
        shapes.append((across, down))
    counted = [(-(-width // across) * -(-height // down), across * down) for across, down in shapes]
    return max(counted, key=lambda one: one[0] * one[1])


def _packed(found: Directory, tally: Tally) -> NDArray[numpy.float64]:
    """Bytes of each strip or tile; those that several share count for each."""
    size = len(found.data)
    packed = numpy.concatenate([found.all_values(tag) for tag in (STRIP_BYTES, TILE_BYTES)]).astype(numpy.float64)
    places = numpy.concatenate([found.all_values(tag) for tag in (STRIPS, TILES)]).astype(numpy.float64)
    if len(packed) < len(places):
        # Where nothing is said of its length, one reaches to the next one.
        ends = numpy.append(numpy.unique(places), max(size, places.max()))
        following = ends[numpy.minimum(numpy.searchsorted(ends, places, "right"), len(ends) - 1)]
        packed = numpy.append(packed, (following - places)[len(packed) :])
    packed = numpy.minimum(packed, size)
    if packed.sum() > max(tally.limits.max_bytes, size):
        raise ImageTooLarge(
            f"the strips or tiles of the image have {int(packed.sum())} bytes together; "
            f"{tally.limits.max_bytes} are allowed"
        )
    return packed


def _scans(found: Directory, packed: NDArray[numpy.float64]) -> int:
    """Scans of all JPEGs within, those that several strips or tiles share counted for each."""
    places = numpy.concatenate([found.all_values(tag) for tag in (STRIPS, TILES)])
    if len(places) != len(packed):
        return max(1, len(places)) * found.data.count(b"\xff\xda")
    pairs = zip(places.tolist(), packed.astype(int).tolist(), strict=True)
    return sum(found.data.count(b"\xff\xda", begin, begin + length) for begin, length in pairs)
