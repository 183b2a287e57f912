"""Encoded images made by hand: PNG, TIFF and BMP files of every depth, byte order and kind of channel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence

import numpy
from numpy.typing import NDArray

Samples = NDArray[numpy.integer]
"""Samples (H, W, S) of an image, each from 0 to below 2 to the power of its bits."""

Tag = tuple[int, int, Sequence[int]]
"""Number, type (3: 16 bits, 4: 32 bits, 5: fractions) and values of a TIFF tag; a fraction is two values."""


def packed(samples: Samples, bits: int, order: str = ">") -> list[bytes]:
    """The rows of samples (H, W, S), `bits` each; 16 and 32 bits in a byte order, others with the first bit highest."""
    rows = samples.reshape(len(samples), -1)
    if bits in (16, 32):
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in rows]
    shifts = numpy.arange(bits)[::-1]
    return [numpy.packbits((row[:, None] >> shifts & 1).astype(numpy.uint8).reshape(-1)).tobytes() for row in rows]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(samples: Samples, depth: int, colour: int, *before: bytes, interlaced: bool = False) -> bytes:
    """A PNG of samples (H, W, S) without filters, with chunks `before` its pixels."""
    height, width = samples.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [samples[top::down, left::across] for top, left, down, across in passes]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in packed(part, depth))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    end = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(before) + end


def packbits(data: bytes) -> bytes:
    """PackBits of literal runs and, where a byte repeats, of repeated ones."""
    out = bytearray()
    at = 0
    while at < len(data):
        run = 1
        while run < 128 and at + run < len(data) and data[at + run] == data[at]:
            run += 1
        if run > 2:
            out += bytes([257 - run, data[at]])
            at += run
        else:
            out += bytes([0, data[at]])
            at += 1
    return bytes(out)


def lzw(data: bytes) -> bytes:
    """LZW as in TIFF, most significant bit first, written without compression: the table is cleared before it grows."""
    codes = [256]
    for number, byte in enumerate(data):
        if number and number % 200 == 0:
            codes.append(256)
        codes.append(byte)
    codes.append(257)
    bits = numpy.array(codes)[:, None] >> numpy.arange(9)[::-1] & 1
    return numpy.packbits(bits.astype(numpy.uint8).reshape(-1)).tobytes()


COMPRESSIONS: dict[int, Callable[[bytes], bytes]] = {1: bytes, 5: lzw, 8: zlib.compress, 32773: packbits}
"""How a strip is compressed, by the number of the compression."""


def tiff_file(
    samples: Samples,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    compression: int = 1,
    predictor: int = 1,
    planar: int = 1,
    rows: int = 5,
    tile: int = 0,
    tags: Iterable[Tag] = (),
) -> bytes:
    """A TIFF of samples (H, W, S) in strips or in square tiles of `tile` pixels; `tags` are added or replace others."""
    height, width, count = samples.shape
    planes = [samples] if planar == 1 else [samples[:, :, [plane]] for plane in range(count)]
    pieces: list[bytes] = []
    for plane in planes:
        for piece in _pieces(plane, rows, tile):
            # PackBits goes row by row.
            if predictor == 2:
                piece = numpy.concatenate([piece[:, :1], piece[:, 1:] - piece[:, :-1]], axis=1) & ((1 << bits) - 1)
            pack = COMPRESSIONS[compression]
            lines = packed(piece, bits, order)
            pieces.append(b"".join(map(pack, lines)) if compression == 32773 else pack(b"".join(lines)))
    body, offsets = b"", []
    for one in pieces:
        offsets.append(8 + len(body))
        body += one + b"\0" * (len(one) % 2)
    where = [(322, 4, [tile]), (323, 4, [tile]), (324, 4, offsets), (325, 4, [*map(len, pieces)])]
    if not tile:
        where = [(273, 4, offsets), (278, 4, [rows]), (279, 4, [*map(len, pieces)])]
    fields: dict[int, tuple[int, Sequence[int]]] = {
        number: (kind, values)
        for number, kind, values in (
            (256, 4, [width]),
            (257, 4, [height]),
            (258, 3, [bits] * count),
            (259, 3, [compression]),
            (262, 3, [photometric]),
            (277, 3, [count]),
            (284, 3, [planar]),
            (317, 3, [predictor]),
            *where,
            *tags,
        )
    }
    return _with_directory(body, fields, order)


def _pieces(plane: Samples, rows: int, tile: int) -> list[Samples]:
    height, width = plane.shape[:2]
    if not tile:
        return [plane[top : top + rows] for top in range(0, height, rows)]
    padded = numpy.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)), mode="edge")
    corners = [(top, left) for top in range(0, height, tile) for left in range(0, width, tile)]
    return [padded[top : top + tile, left : left + tile] for top, left in corners]


def _with_directory(body: bytes, fields: dict[int, tuple[int, Sequence[int]]], order: str) -> bytes:
    start = 8 + len(body)
    entries, extra = b"", b""
    for number, (kind, values) in sorted(fields.items()):
        data = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(data) > 4:
            place = start + 2 + 12 * len(fields) + 4 + len(extra)
            extra, data = extra + data, struct.pack(order + "I", place)
        count = len(values) // 2 if kind == 5 else len(values)
        entries += struct.pack(order + "HHI", number, kind, count) + data.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return head + body + struct.pack(order + "H", len(fields)) + entries + bytes(4) + extra


def bmp_file(
    rows: Sequence[bytes] | bytes,
    size: tuple[int, int],
    bits: int,
    *,
    compression: int = 0,
    palette: bytes = b"",
    masks: Sequence[int] = (),
    header: int = 40,
    top_down: bool = False,
) -> bytes:
    """A BMP of rows from the top, or of compressed data; a colour of the palette has four bytes."""
    width, height = size
    if not isinstance(rows, bytes):
        padded = [row + bytes(-len(row) % 4) for row in rows]
        rows = b"".join(padded if top_down else padded[::-1])
    words = struct.pack(f"<{len(masks)}I", *masks)
    info = struct.pack("<IiiHHII", header, width, -height if top_down else height, 1, bits, compression, len(rows))
    info += struct.pack("<iiII", 2835, 2835, len(palette) // 4, 0) + (words if header > 40 else b"")
    info = info.ljust(header, b"\0") + (words if header == 40 else b"") + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def lossless_jpeg(samples: Samples, bits: int) -> bytes:
    """A grey JPEG without loss (ITU-T T.81, annex H) of samples (H, W, 1): each minus the one on its left."""
    height, width = samples.shape[:2]
    codes = ""
    for row in range(height):
        for column in range(width):
            left = samples[row, column - 1, 0] if column else samples[row - 1, 0, 0] if row else 1 << (bits - 1)
            step = int(samples[row, column, 0]) - int(left)
            length = abs(step).bit_length()
            codes += f"{length:05b}"
            if length:
                codes += f"{step if step > 0 else step + (1 << length) - 1:0{length}b}"
    codes += "1" * (-len(codes) % 8)
    scan = int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0")
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])  # 17 codes of five bits each
    frame = struct.pack(">BHHB", bits, height, width, 1) + b"\1\x11\0"
    parts = ((0xC3, frame), (0xC4, table), (0xDA, b"\1\1\0\1\0\0"))
    head = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(one) + 2) + one for marker, one in parts)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"
