"""Images that take long to decode, or consist of very many parts, though they are small files."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

Segment = tuple[int, bytes]


def jpeg_segments(data: bytes) -> list[Segment]:
    """The segments of a JPEG, each with its marker, a scan with its codes."""
    at, found = 2, []
    while data[at + 1] != 0xD9:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xDA:
            while data[end] != 0xFF or data[end + 1] == 0 or 0xD0 <= data[end + 1] <= 0xD7:
                end += 1
        found.append((data[at + 1], data[at:end]))
        at = end
    return found


def jpeg_of_scans(count: int, side: int = 64) -> bytes:
    """A grey progressive JPEG with `count` scans, of which all but six are the same empty one."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True, quality=90)
    segments = jpeg_segments(file.getvalue())
    scans = [place for place, (marker, _) in enumerate(segments) if marker == 0xDA]
    again = scans[1]  # a first pass over some coefficients
    more = [segments[again]] * (count - len(scans))
    return b"\xff\xd8" + b"".join(data for _, data in [*segments[:again], *more, *segments[again:]]) + b"\xff\xd9"


def jpeg_with(segments: bytes) -> bytes:
    """A small grey JPEG with further segments before its own."""
    file = io.BytesIO()
    Image.new("L", (16, 16), 128).save(file, "JPEG")
    return file.getvalue()[:2] + segments + file.getvalue()[2:]


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunks: bytes, width: int = 16, height: int = 16) -> bytes:
    """A grey PNG with further chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * height))
    pieces = (png_chunk(b"IHDR", header), chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND"))
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def gif_with(blocks: bytes) -> bytes:
    """A small GIF with further blocks before its frame."""
    file = io.BytesIO()
    Image.new("P", (16, 16)).save(file, "GIF")
    data = file.getvalue()
    frame = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    return data[:frame] + blocks + data[frame:]


def tiff_of(tags: list[tuple[int, int, int, int]], body: bytes = b"", *, big: bool = False, after: int = 0) -> bytes:
    """A TIFF: header, body, and a directory of tags (number, type, count, value) that leads on to `after`."""
    start = (16 if big else 8) + len(body)
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", start) if big else b"II*\0" + struct.pack("<I", start)
    entries = b"".join(struct.pack("<HHQQ" if big else "<HHII", *tag) for tag in sorted(tags))
    return head + body + struct.pack("<Q" if big else "<H", len(tags)) + entries + struct.pack("<Q", after)


def tiff_of_strips(
    count: int, packed: bytes, *, width: int = 16, big: bool = False, lengths_said: bool = True
) -> bytes:
    """A grey TIFF of one row in each strip, all of which are the same packed bytes."""
    start = 16 if big else 8
    places, lengths = struct.pack("<I", start) * count, struct.pack("<I", len(packed)) * count
    return tiff_of(
        [
            *((256, 4, 1, width), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)),
            *((278, 4, 1, 1), (273, 4, count, start + len(packed))),
            *([(279, 4, count, start + len(packed + places))] if lengths_said else []),
        ],
        packed + places + lengths,
        big=big,
    )


def tiff_of_tiles(count: int, side: int) -> bytes:
    """A grey TIFF 16 pixels wide, covered by far wider tiles that are all the same."""
    packed = zlib.compress(bytes(side * side), 9)
    places, lengths = struct.pack("<I", 8) * count, struct.pack("<I", len(packed)) * count
    return tiff_of(
        [
            *((256, 4, 1, 16), (257, 4, 1, side * count), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)),
            *((277, 3, 1, 1), (322, 4, 1, side), (323, 4, 1, side)),
            *((324, 4, count, 8 + len(packed)), (325, 4, count, 8 + len(packed + places))),
        ],
        packed + places + lengths,
    )


def bmp_of_runs(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 8 bits a pixel, packed as runs."""
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + bytes(range(256)) * 4 + runs


def slow_jpeg() -> bytes:
    """A JPEG of 16 million pixels and 30,000 scans in 1 MB, which takes a minute where nothing ends it."""
    return jpeg_of_scans(30_000, 4000)
