"""Sizes of images by their headers, checked before memory is set aside for pixels."""

from __future__ import annotations

import struct

from engram.errors import ImageTooLarge, NotAnImage


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """See that width times height is allowed.

    Raises
    ------
    ImageTooLarge
    """
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; {max_pixels} are allowed")


def announced_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header, for the formats whose readers set memory aside before they tell the size.

    Raises
    ------
    NotAnImage
        A WebP file that holds no image.
    SyntaxError, IndexError, struct.error
        Damage in the header.
    """
    if data.startswith(b"GIF8"):
        return _gif_size(data)
    if data.startswith(b"RIFF"):
        return _webp_size(data)
    if data.startswith(b"\x89PNG") and data[12:16] == b"IHDR":
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    return 0, 0


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise NotAnImage("these bytes claim to be WebP but hold no WebP image")


def _gif_size(data: bytes) -> tuple[int, int]:
    """The screen, widened by a first frame that reaches beyond it."""
    width, height = struct.unpack_from("<HH", data, 6)
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    while data[at] == 0x21:  # extensions, each a chain of blocks that ends with an empty one
        at += 2
        while data[at]:
            at += data[at] + 1
        at += 1
    if data[at] != 0x2C:
        raise SyntaxError("no frame in a GIF")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    return max(width, left + frame_width), max(height, top + frame_height)
