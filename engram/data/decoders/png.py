"""PNG (ISO/IEC 15948): its chunks, and its pixels with 16 bits and colour keys."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Self

import numpy
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import MAX_TEXT_CHUNK, MAX_TEXT_MEMORY, PngImageFile

from engram.data.decoders.damage import DAMAGE
from engram.data.decoders.layers import ROWS, Layers, eight_bits, layers, orientation, turned
from engram.data.decoders.sizes import check_pixels

SIGNATURE = 8
"""Bytes before the first chunk."""

KEPT = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf"})
"""Chunks that say what the pixels are and which side is up."""

ORIENTED = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""How texts begin that may say which side is up."""

PLAIN = {b"\x08\0\0\0\0": "L", b"\x08\2\0\0\0": "RGB"}
"""How headers end of images of 8 bits without opacity, in rows from top to bottom, and Pillow's modes for them."""

LONGEST_PLAIN = 2**16
"""Bytes of an image whose pixels Pillow's reader would hand to its decoder at once."""

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
"""Colour types."""


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each chunk; what follows the first broken one is one more, of no kind."""
    at = SIGNATURE
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        yield data[at + 4 : at + 8], at, end
        at = end
    if at < len(data):
        yield b"", at, len(data)


def _filtered(data: bytes, keep: Callable[[bytes, bytes], bool]) -> bytes:
    """The image without the chunks that `keep` refuses, by their kind and content."""
    parts: list[bytes] = []
    done = 0
    for kind, start, end in _chunks(data):
        if kind not in KEPT and kind and not keep(kind, data[start + 8 : end - 4]):
            parts.append(data[done:start])
            done = end
    return b"".join((*parts, data[done:])) if parts else data


class _TextBudget:
    """What Pillow takes of texts and profiles: more than that, and it refuses an image whose pixels are sound."""

    def __init__(self) -> None:
        self._taken = 0

    def fits(self, kind: bytes, content: bytes) -> bool:
        """Whether the chunk is no text or profile, or a small one."""
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            return True
        length = self._unpacked(kind, content)
        if length is None:
            return False
        if kind != b"iCCP":
            self._taken += length
        return self._taken <= MAX_TEXT_MEMORY

    @staticmethod
    def _unpacked(kind: bytes, content: bytes) -> int | None:
        """Length of the text, or None where it is too long."""
        _, _, rest = content.partition(b"\0")
        if kind == b"tEXt" or (kind == b"iTXt" and rest[:1] != b"\1"):
            return len(content)
        packed = rest[2:].split(b"\0", 2)[-1] if kind == b"iTXt" else rest[1:]
        unpacker = zlib.decompressobj()
        try:
            length = len(unpacker.decompress(packed, MAX_TEXT_CHUNK))
        except zlib.error:
            return 0
        return None if unpacker.unconsumed_tail else length


def without_excess(data: bytes) -> bytes:
    """The image without texts and profiles that are too large for Pillow; as it is where there are none."""
    return _filtered(data, _TextBudget().fits)


def essential(data: bytes) -> bytes:
    """The image with only those chunks on which its pixels depend."""
    budget = _TextBudget()

    def keep(kind: bytes, content: bytes) -> bool:
        if kind in (b"zTXt", b"iTXt", b"tEXt") and content.startswith(ORIENTED):
            return budget.fits(kind, content)
        return not kind[:1].islower()

    return _filtered(data, keep)


def read(data: bytes, max_pixels: int) -> Layers:
    """Colours and transparency of a PNG, of its still image where it is animated.

    Raises
    ------
    ImageTooLarge
    Exception
        One of `DAMAGE`.
    """
    if (plain := _plain(data, max_pixels)) is not None:
        return plain
    data = essential(data)
    depth, colour = data[24], data[25]
    if (depth, colour) == (16, GREY_ALPHA):
        return _grey_alpha_16(data, max_pixels)
    key = _Key.of(data, depth) if colour in (GREY, RGB) else None
    with PngImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        if colour != PALETTE:
            image.info.pop("transparency", None)
        if depth < 16 and key is None:
            return layers(image)
        image.load()
        if (depth, colour) == (16, GREY) or depth < 16:
            bands = _bands(image.convert("L") if image.mode == "1" else image)
        else:
            bands = _wide_bands(data, image)
        found = _scaled(bands, image.size, len(image.getbands()), key)
        side = orientation(image)
    return Layers(turned(found.colours, side), found.alpha and turned(found.alpha, side))


def _plain(data: bytes, max_pixels: int) -> Layers | None:
    """A small image that says nothing but its pixels, which Pillow's decoder is handed without its reader.

    None for all others, and for what is damaged; raises ImageTooLarge.
    """
    mode, end = PLAIN.get(data[24:29]), len(data) - 16
    if mode is None or len(data) > LONGEST_PLAIN or data[8:16] != b"\0\0\0\rIHDR":
        return None
    width, height, told, length, kind = struct.unpack_from(">II5xII4s", data, 16)
    if kind != b"IDAT" or length != end - 41 or data[end + 4 : end + 12] != b"\0\0\0\0IEND":
        return None
    if zlib.crc32(data[12:29]) != told or not width * height:
        return None
    check_pixels((width, height), max_pixels)
    try:
        return Layers(Image.frombytes(mode, (width, height), data[41:end], "zip", mode))
    except DAMAGE:
        return None


@dataclass(frozen=True)
class _Key:
    """The one colour that is transparent, as it is found in samples."""

    colour: NDArray[numpy.int64]

    @classmethod
    def of(cls, data: bytes, depth: int) -> Self | None:
        """What the chunk `tRNS` of a grey or colour image says, None where there is none."""
        content = next((data[start + 8 : end - 4] for kind, start, end in _chunks(data) if kind == b"tRNS"), None)
        if content is None:
            return None
        # Only as many bits count as a sample has; samples of fewer than 8 bits were spread over 8.
        found = numpy.array(struct.unpack(f">{len(content) // 2}H", content), dtype=numpy.int64) & ((1 << depth) - 1)
        return cls(found * 255 // ((1 << depth) - 1) if depth < 8 else found)

    def opacity(self, samples: NDArray[numpy.integer]) -> NDArray[numpy.uint8]:
        """0 where samples (H, W, S) are this colour, 255 elsewhere (H, W)."""
        return numpy.where((samples == self.colour).all(axis=2), 0, 255).astype(numpy.uint8)


def _bands(image: Image.Image) -> Iterator[NDArray[numpy.integer]]:
    """Samples (rows, W, S) of an image, some rows at a time."""
    for top in range(0, image.height, ROWS):
        part = numpy.asarray(image.crop((0, top, image.width, min(top + ROWS, image.height))))
        yield part.reshape(len(part), image.width, -1)


def _wide_bands(data: bytes, high: Image.Image) -> Iterator[NDArray[numpy.integer]]:
    """Samples (rows, W, S) of 16 bits of a colour image of which Pillow kept the high byte of each.

    Read again in the other byte order, it keeps the low one.
    """
    with PngImageFile(BytesIO(data)) as low:
        (tile,) = low.tile
        low.tile = [tile._replace(args=str(tile.args).replace(";16B", ";16L"))]
        low.load()
        for above, below in zip(_bands(high), _bands(low), strict=True):
            yield above.astype(numpy.uint16) << 8 | below


def _scaled(bands: Iterator[NDArray[numpy.integer]], size: tuple[int, int], samples: int, key: _Key | None) -> Layers:
    """Samples of 8 or 16 bits as an image, opaque but where they have the colour of a key."""
    width, height = size
    out = numpy.empty((height, width, samples), dtype=numpy.uint8)
    opacity = None if key is None else numpy.empty((height, width), dtype=numpy.uint8)
    top = 0
    for band in bands:
        part = slice(top, top := top + len(band))
        out[part] = band if band.dtype == numpy.uint8 else eight_bits(band)
        if key is not None and opacity is not None:
            opacity[part] = key.opacity(band)
    if samples == 4:
        *colours, alpha = Image.fromarray(out).split()
        return Layers(Image.merge("RGB", colours), alpha)
    image = Image.fromarray(out[:, :, 0] if samples == 1 else out)
    return Layers(image, None if opacity is None else Image.fromarray(opacity))


def _grey_alpha_16(data: bytes, max_pixels: int) -> Layers:
    """Grey with transparency, 16 bits each: four bytes a pixel, which are read as if they were RGBA with 8 bits."""
    header = b"IHDR" + data[16:24] + bytes([8, RGB_ALPHA]) + data[26:29]
    data = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
    with PngImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        image.load()
        side = orientation(image)
        out = numpy.empty((image.height, image.width, 2), dtype=numpy.uint8)
        top = 0
        for band in _bands(image):  # (rows, W, 4): high and low byte of grey, then of opacity
            part = slice(top, top := top + len(band))
            out[part] = eight_bits(band[:, :, 0::2].astype(numpy.uint16) << 8 | band[:, :, 1::2])
    grey, alpha = (Image.fromarray(numpy.ascontiguousarray(out[:, :, number])) for number in (0, 1))
    return Layers(turned(grey, side), turned(alpha, side))
