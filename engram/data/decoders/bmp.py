"""BMP: pixels with masks of bits, among them such with transparency, and kinds that are not read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BytesIO

import numpy
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile

from engram.data.decoders.layers import ROWS, Layers, layers
from engram.data.decoders.sizes import check_pixels
from engram.errors import UnsupportedImage

PLAIN, RUNS_8, RUNS_4, MASKS, JPEG, PNG, MASKS_WITH_ALPHA = range(7)
"""Compressions."""

NAMES = {JPEG: "JPEG", PNG: "PNG"}

DEFAULT_MASKS = {16: (0x7C00, 0x03E0, 0x001F, 0), 32: (0xFF0000, 0x00FF00, 0x0000FF, 0xFF000000)}
"""Red, green, blue and opacity in a pixel without masks.

The fourth byte of 32 bits is said to be unused, but drawing programs and Pillow keep the opacity there.
"""


@dataclass(frozen=True)
class _Header:
    length: int
    width: int
    height: int
    """Negative where the first row is the top one."""
    bits: int
    compression: int
    offset: int
    """Of the pixels."""

    @property
    def masked(self) -> bool:
        return self.bits in (16, 32) and self.compression in (PLAIN, MASKS, MASKS_WITH_ALPHA) and self.length >= 40


def _header(data: bytes) -> _Header:
    (offset,) = struct.unpack_from("<I", data, 10)
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return _Header(length, width, height, bits, PLAIN, offset)
    width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
    compression = struct.unpack_from("<I", data, 30)[0] if length >= 40 else PLAIN
    return _Header(length, width, height, bits, compression, offset)


def refusal(data: bytes) -> str | None:
    """Why a BMP is of a kind that is not supported; None where it is not.

    Raises
    ------
    struct.error
        The header is cut off.
    """
    header = _header(data)
    if header.length == 16 or (header.length == 64 and header.compression > RUNS_4):
        return "this kind of BMP, of OS/2, is not supported"
    if header.compression > MASKS_WITH_ALPHA or header.compression in NAMES:
        return f"BMP with the compression {NAMES.get(header.compression, header.compression)} is not supported"
    if header.bits not in (1, 4, 8, 16, 24, 32):
        return f"BMP with {header.bits} bits a pixel is not supported"
    return None


def read(data: bytes, max_pixels: int) -> Layers:
    """Colours and transparency of a BMP.

    Raises
    ------
    ImageTooLarge, UnsupportedImage
    Exception
        One of `DAMAGE`.
    """
    if reason := refusal(data):
        raise UnsupportedImage(reason)
    header = _header(data)
    check_pixels((abs(header.width), abs(header.height)), max_pixels)
    if header.masked:
        return _masked(data, header)
    with BmpImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        return layers(image)


def _masked(data: bytes, header: _Header) -> Layers:
    """Colours that lie in bits of one number a pixel."""
    width, height = header.width, abs(header.height)
    if width < 1 or not height:
        raise ValueError("no pixels")
    stride = (width * header.bits + 31) // 32 * 4
    if header.offset + stride * height > len(data):
        raise EOFError("pixels are missing")
    rows = numpy.frombuffer(data, numpy.uint8, stride * height, header.offset).reshape(height, stride)
    if header.height > 0:
        rows = rows[::-1]
    masks = _masks(data, header)
    out = numpy.empty((height, width, 4), dtype=numpy.uint8)
    for top in range(0, height, ROWS):
        part = numpy.ascontiguousarray(rows[top : top + ROWS]).view(f"<u{header.bits // 8}")[:, :width]
        for channel, mask in enumerate(masks):
            out[top : top + ROWS, :, channel] = _channel(part, mask)
    *colours, alpha = Image.fromarray(out).split()
    # Where no pixel has opacity, the bits were left unused.
    return Layers(Image.merge("RGB", colours), alpha if alpha.getextrema() != (0, 0) else None)


def _masks(data: bytes, header: _Header) -> tuple[int, ...]:
    if header.compression == PLAIN:
        return DEFAULT_MASKS[header.bits]
    count = 4 if header.compression == MASKS_WITH_ALPHA or header.length >= 56 else 3
    found = struct.unpack_from(f"<{count}I", data, 54)
    return (*found, 0)[:4] if any(found) else DEFAULT_MASKS[header.bits]


def _channel(numbers: NDArray[numpy.unsignedinteger], mask: int) -> NDArray[numpy.uint8]:
    """The bits of a mask, scaled to 0 to 255."""
    if not mask:
        return numpy.zeros(numbers.shape, dtype=numpy.uint8)
    shift = (mask & -mask).bit_length() - 1
    most = mask >> shift
    if most & (most + 1):
        raise UnsupportedImage("BMP with a mask of bits that do not lie side by side is not supported")
    values = (numbers.astype(numpy.uint64) & mask) >> shift
    return ((values * 255 + most // 2) // most).astype(numpy.uint8)
