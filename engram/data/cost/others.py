"""Costs of GIF, WebP, BMP and AVIF images."""

from __future__ import annotations

import struct

from engram.data.cost.exif import exif
from engram.data.cost.tally import LIGHT_SECONDS, Tally


def gif(data: bytes, tally: Tally) -> None:
    """Add up the first frame of a GIF, and the blocks before it."""
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] == 0x21:
        at += 2
        while data[at]:
            tally.part()
            at += data[at] + 1
        tally.part()
        at += 1
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    tally.seconds += (len(data) - at) * 15e-9 + frame_width * frame_height * 8e-9
    tally.memory += 3 * len(data) + frame_width * frame_height
    tally.picture(max(width, left + frame_width), max(height, top + frame_height), 26, 12e-9)


def webp(data: bytes, tally: Tally) -> None:
    """Add up a WebP, of which the first frame is read."""
    at, width, height, lossless, alpha = 12, 0, 0, False, False
    while at + 8 <= len(data):
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        begin = at + 8
        tally.part()
        lossless |= kind in (b"VP8L", b"ALPH", b"ANMF")
        if kind == b"VP8X":
            width, height = (int.from_bytes(data[begin + by : begin + by + 3], "little") + 1 for by in (4, 7))
            alpha = bool(data[begin] & 0x12)  # transparency, animation
        elif kind == b"VP8L" and not width:
            bits = int.from_bytes(data[begin + 1 : begin + 5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            alpha = bool(bits >> 28 & 1)
        elif kind == b"VP8 " and not width and begin + 10 <= len(data):
            width, height = (one & 0x3FFF for one in struct.unpack_from("<HH", data, begin + 6))
        elif kind == b"EXIF":
            exif(data[begin : begin + length].removeprefix(b"Exif\0\0"), tally)
        at = begin + length + (length & 1)
    # Tables of codes, of which a lossless picture may have one set for every 4 x 4 pixels.
    tables = min(2**16, width * height // 16, len(data) // 2) if lossless else 0
    tally.seconds += tables * 5e-6 + len(data) * 20e-9 + width * height * 20e-9
    tally.memory += tables * 9400 + 4 * len(data) + 16 * width * height
    tally.picture(width, height, 22 if alpha else 9.5, 12e-9)


def bmp(data: bytes, tally: Tally) -> None:
    """Add up a BMP."""
    header, packing = int.from_bytes(data[14:18], "little"), 0
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
        packing = int.from_bytes(data[30:34], "little") if header >= 40 else 0
    width, height = abs(width), abs(height)
    if packing in (1, 2):
        # Runs are unpacked in Python, those of four bits pixel by pixel, and so are the ends of lines.
        tally.seconds += len(data) * 0.5e-6 + width * height * 0.15e-6
        tally.memory += 3 * width * height
    tally.memory += 3 * len(data)
    tally.picture(width, height, 22, 60e-9 if data[28:30] in (b"\x10\0", b"\x20\0") else 10e-9)


def avif(data: bytes, tally: Tally) -> None:
    """Add up an AVIF by the sizes and the number of its items; as its pictures may be larger, it is never light."""
    sizes, at, items = [(0, 0)], 0, data.count(b"infe", 0, 2**20)
    while (at := data.find(b"ispe", at)) >= 0 and at + 16 <= len(data):
        tally.part()
        sizes.append(struct.unpack_from(">II", data, at + 8))
        at += 4
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    tally.seconds += 2 * LIGHT_SECONDS + width * height * max(1, items) * 40e-9 + len(data) * 40e-9
    tally.memory += 4 * len(data) + 12 * width * height
    tally.picture(width, height, 22, 12e-9)
