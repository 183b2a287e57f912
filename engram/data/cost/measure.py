"""Measuring of an encoded image before it is decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable

from engram.config.definition import InputShape
from engram.data.cost.jpeg import jpeg
from engram.data.cost.others import avif, bmp, gif, webp
from engram.data.cost.png import png
from engram.data.cost.tally import Cost, Tally
from engram.data.cost.tiff import tiff
from engram.data.image_limits import IMAGE_LIMITS, ImageLimits

FORMATS: tuple[tuple[int, tuple[bytes, ...], Callable[[bytes, Tally], None]], ...] = (
    (0, (b"\xff\xd8",), jpeg),
    (0, (b"\x89PNG",), png),
    (0, (b"GIF8",), gif),
    (0, (b"II", b"MM"), tiff),
    (8, (b"WEBP",), webp),
    (0, (b"BM",), bmp),
    (4, (b"ftyp",), avif),
)
"""Where a format's mark is, what it is, and what adds such images up."""


def measure(data: bytes, shape: InputShape, limits: ImageLimits = IMAGE_LIMITS) -> Cost:
    """What decoding an image takes, by one pass over its bytes, which takes a small part of the decoding's time.

    Bytes that end early cost what there is of them. What is not understood here counts as endless work.

    Raises
    ------
    ImageTooCostly
        More scans, more parts or more memory than `limits` allow.
    ImageTooLarge
        Strips or tiles of more bytes than an image may have.
    """
    tally = Tally(limits, shape)
    for place, marks, add in FORMATS:
        if data[place : place + 8].startswith(marks):
            try:
                add(data, tally)
            except (LookupError, struct.error):
                tally.seconds += len(data) * 50e-9
            except (ArithmeticError, ValueError):
                tally.seconds = float("inf")
            break
    else:
        tally.seconds = float("inf")
    return tally.cost()
