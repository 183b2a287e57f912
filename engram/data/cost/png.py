"""Cost of a PNG: chunks, compressed texts, and rows."""

from __future__ import annotations

import struct

from engram.data.cost.exif import exif
from engram.data.cost.tally import Tally

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
MOST_TEXT = 2**20
"""Bytes that Pillow unpacks of one compressed text at most."""
MOST_TEXTS = 64 * 2**20
"""Of all of them."""
RATIO = 1032
"""Of what Deflate unpacks to, at most."""


def png(data: bytes, tally: Tally) -> None:
    """Add up a PNG."""
    at, texts = 8, 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        begin, end = at + 8, at + 8 + length
        tally.part()
        if kind == b"IHDR" and length >= 13:
            _picture(data[begin : begin + 13].ljust(13, b"\0"), tally)
        elif kind == b"IEND":
            break
        elif kind in (b"zTXt", b"iTXt", b"iCCP"):
            unpacked = min(MOST_TEXT, (min(end, len(data)) - begin) * RATIO)
            tally.seconds += unpacked * 8e-9
            texts += unpacked
        elif kind == b"tRNS":
            _picture(data[16:29].ljust(13, b"\0"), tally)  # a second look at all pixels
        elif kind == b"eXIf":
            exif(data[begin:end], tally)
        at = end + 4
    tally.seconds += len(data) * 12e-9
    tally.memory += 3 * len(data) + min(2 * MOST_TEXTS, texts)


def _picture(header: bytes, tally: Tally) -> None:
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    channels = CHANNELS.get(colour, 4)
    row = width * channels * max(depth, 1) / 8 + 1
    passes = 3 if interlace else 1  # seven, of a part of the rows each
    tally.seconds += height * passes * (row * 5e-9 + 1e-6)
    if depth == 16 and colour == 0:
        tally.picture(width, height, 22, 80e-9)
    elif depth == 16 or colour in (3, 4, 6):
        tally.picture(width, height, 26, 12e-9)
    else:
        tally.picture(width, height, 10 if colour == 2 else 6.5, 6e-9)
