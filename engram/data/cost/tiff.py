"""Cost of a TIFF: the entries of its directory, strips, tiles, and what they are packed with."""

from __future__ import annotations

import numpy

from engram.data.cost.exif import Directory, directory, sub_directories
from engram.data.cost.tally import Tally
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
    samples = min(16, _one(found, SAMPLES, 1))
    depth = min(64, max(found.values(BITS), default=1))
    compression = _one(found, COMPRESSION, 1)
    pieces, area = _pieces(found, width, height)
    if _one(found, PLANES, 1) == 2:
        pieces *= samples
    else:
        area *= samples
    tally.part(
        min(max(pieces, found.count(STRIPS, TILES)), tally.limits.max_parts + 1), 20e-6 if compression == RAW else 4e-6
    )
    unpacked = pieces * max(1.0, area * depth / 8)
    tally.seconds += unpacked * RATES.get(compression, OTHER_RATE)
    packed = _packed(found, tally)
    tally.seconds += float(packed.sum()) * PACKED_RATES.get(compression, 12e-9)
    if compression in (JPEG, OLD_JPEG):
        tally.seconds += _scans(found, packed) * area * depth / 8 * SCAN_SECONDS
    tally.memory += int(min(unpacked, 2 * area * depth / 8))
    grey16 = samples == 1 and depth == 16
    memory = 22 if grey16 or samples in (2, 4) else 14 if samples > 2 else 10
    tally.picture(width, height, memory, 80e-9 if grey16 else 10e-9)


def _one(found: Directory, tag: int, otherwise: int) -> int:
    return next(iter(found.values(tag)), otherwise)


def _pieces(found: Directory, width: int, height: int) -> tuple[int, int]:
    """How many strips or tiles cover the picture, and the pixels of one."""
    across, down = _one(found, TILE_WIDTH, 0), _one(found, TILE_HEIGHT, 0)
    if not (across and down):
        across, down = max(1, width), min(max(1, height), max(1, _one(found, STRIP_ROWS, height)))
    return -(-width // across) * -(-height // down), across * down


def _packed(found: Directory, tally: Tally) -> numpy.typing.NDArray[numpy.float64]:
    """Bytes of each strip or tile; those that several share count for each."""
    packed = numpy.concatenate([found.all_values(tag) for tag in (STRIP_BYTES, TILE_BYTES)]).astype(numpy.float64)
    packed = numpy.minimum(packed, len(found.data))
    if packed.sum() > max(tally.limits.max_bytes, len(found.data)):
        raise ImageTooLarge(
            f"the strips or tiles of the image have {int(packed.sum())} bytes together; "
            f"{tally.limits.max_bytes} are allowed"
        )
    return packed


def _scans(found: Directory, packed: numpy.typing.NDArray[numpy.float64]) -> int:
    """Scans of all JPEGs within, those that several strips or tiles share counted for each."""
    places = numpy.concatenate([found.all_values(tag) for tag in (STRIPS, TILES)])
    if len(places) != len(packed):
        return max(1, len(places)) * found.data.count(b"\xff\xda")
    pairs = zip(places.tolist(), packed.astype(int).tolist(), strict=True)
    return sum(found.data.count(b"\xff\xda", begin, begin + length) for begin, length in pairs)
