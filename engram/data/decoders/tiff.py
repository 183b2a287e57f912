"""TIFF: samples of up to 16 bits, as their directory says that they are stored and what they mean.

libtiff, by way of Pillow, only undoes the compression of bytes: strips and tiles are handed to it as grey of 8 bits.
What the bytes mean is decided here, the same for every depth, byte order and layout. Compressions that are made for
pictures (fax, JPEG) are left to libtiff as they are.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from io import BytesIO

import numpy
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from engram.data.decoders import tiff_directory as tags
from engram.data.decoders.jpeg import GREY_TOLERANCE
from engram.data.decoders.layers import ORIENTATION, Layers, eight_bits, layers, turned
from engram.data.decoders.sizes import check_pixels
from engram.data.decoders.tiff_directory import SampleLayout, TiffDirectory
from engram.errors import ImageTooLarge, UnsupportedImage

BATCH = 4 * 2**20
"""Bytes of samples that are interpreted at once."""

MOST_PADDING = 4
"""Tiles hold at most so many times the pixels that are allowed: they reach beyond the edges of an image."""

_REVERSED = bytes(int(f"{number:08b}"[::-1], 2) for number in range(256))


def read(data: bytes, max_pixels: int) -> Layers:
    """Colours and transparency of the first image of a TIFF.

    Raises
    ------
    ImageTooLarge, UnsupportedImage
    Exception
        One of `DAMAGE`.
    """
    directory = TiffDirectory.of(data)
    _check_raw(data, directory)
    layout = SampleLayout.of(directory)
    check_pixels((layout.width, layout.height), max_pixels)
    check_pixels(layout.tile, max_pixels)
    if layout.meaning == tags.YCBCR and layout.compression in tags.OF_PICTURES and directory.luma_weights() is not None:
        raise UnsupportedImage("TIFF of YCbCr in JPEG with coefficients other than those of Rec. 601 is not supported")
    if layout.compression in tags.OF_PICTURES or _is_subsampled(directory, layout):
        return _by_libtiff(data, max_pixels)
    found = _samples(data, layout, max_pixels)
    colours = _colours(found[:, :, : layout.base], layout, directory)
    alpha = None if layout.alpha is None else Image.fromarray(found[:, :, -1])
    side = directory.one(ORIENTATION, 1)
    return Layers(turned(colours, side), alpha and turned(alpha, side), layout.premultiplied)


def _check_raw(data: bytes, directory: TiffDirectory) -> None:
    """Refuse the raw files of cameras, whose first directory is only of a small preview."""
    preview = directory.one(254, 0) & 1 and 330 in directory.tags
    if preview or 50706 in directory.tags or (data.startswith(b"II*\0") and data[8:10] == b"CR"):
        raise UnsupportedImage("camera RAW is not supported; convert to TIFF, PNG or JPEG")


def _by_libtiff(data: bytes, max_pixels: int) -> Layers:
    with TiffImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        return layers(image, GREY_TOLERANCE)


def _is_subsampled(directory: TiffDirectory, layout: SampleLayout) -> bool:
    """Whether colours of YCbCr are stored for groups of pixels; where nothing is said, by the amount of bytes."""
    if layout.meaning != tags.YCBCR:
        return False
    if directory.all(532, 0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1)[::2] != (0, 255, 128, 255, 128, 255):
        raise UnsupportedImage("TIFF of YCbCr with a range of its own is not supported")
    grouped = directory.all(530, 2, 2) != (1, 1)
    if grouped and layout.compression == tags.NONE:
        if 530 not in directory.tags and sum(layout.counts) >= layout.width * layout.height * layout.samples:
            return False
        raise UnsupportedImage("TIFF of subsampled YCbCr without compression is not supported")
    return grouped


def _colours(found: NDArray[numpy.uint8], layout: SampleLayout, directory: TiffDirectory) -> Image.Image:
    """An image `L` or `RGB` of the colours (H, W, base)."""
    if layout.meaning == tags.RGB:
        return Image.fromarray(numpy.ascontiguousarray(found))
    bands = [Image.fromarray(numpy.ascontiguousarray(found[:, :, number])) for number in range(layout.base)]
    match layout.meaning:
        case tags.WHITE_IS_ZERO:
            return bands[0].point([255 - value for value in range(256)])
        case tags.BLACK_IS_ZERO:
            return bands[0]
        case tags.PALETTE:
            return Image.fromarray(_palette(directory, layout.bits)[found[:, :, 0]])
        case tags.SEPARATED:
            return Image.merge("CMYK", bands).convert("RGB")
        case tags.YCBCR:
            if (weights := directory.luma_weights()) is not None:
                return Image.fromarray(_from_ycbcr(found, weights))
            return Image.merge("YCbCr", bands).convert("RGB")
    try:
        return Image.frombytes("LAB", bands[0].size, numpy.ascontiguousarray(found).tobytes()).convert("RGB")
    except ImportError as error:
        raise UnsupportedImage("TIFF of L*a*b* is not supported: this Pillow has no Little CMS") from error


def _from_ycbcr(found: NDArray[numpy.uint8], weights: tuple[float, float, float]) -> NDArray[numpy.uint8]:
    """RGB (H, W, 3) of YCbCr (H, W, 3) whose brightness weighs red, green and blue so."""
    red, green, blue = weights
    out = numpy.empty_like(found)
    step = max(1, BATCH // (16 * found.shape[1]))
    for top in range(0, len(found), step):
        part = found[top : top + step].astype(numpy.float32)
        light, seen = part[:, :, 0], numpy.empty_like(part)
        seen[:, :, 0] = light + (2 - 2 * red) * (part[:, :, 2] - 128)
        seen[:, :, 2] = light + (2 - 2 * blue) * (part[:, :, 1] - 128)
        seen[:, :, 1] = (light - red * seen[:, :, 0] - blue * seen[:, :, 2]) / green
        out[top : top + step] = numpy.rint(seen).clip(0, 255)
    return out


def _palette(directory: TiffDirectory, bits: int) -> NDArray[numpy.uint8]:
    """Colours (2 to the power of bits, 3)."""
    stored = directory.all(320)
    if len(stored) < 3 << bits:
        raise ValueError("a palette is too short")
    entries = numpy.array(stored[: 3 << bits], dtype=numpy.uint32).reshape(3, -1).T
    # Some writers fill in 8 bits instead of 16: no real palette is as dark as that.
    small = entries if entries.max() < 256 else (entries * 255 + 32767) // 65535
    return numpy.ascontiguousarray(small.astype(numpy.uint8))


def _samples(data: bytes, layout: SampleLayout, max_pixels: int) -> NDArray[numpy.uint8]:
    """Colours and opacity (H, W, base or base + 1); indices of a palette as they are, others scaled to 0 to 255."""
    kept = [*range(layout.base), *([] if layout.alpha is None else [layout.alpha])]
    out = numpy.empty((layout.height, layout.width, len(kept)), dtype=numpy.uint8)
    across, down = -(-layout.width // layout.tile[0]), -(-layout.height // layout.tile[1])
    area = layout.tile[0] * layout.tile[1]
    if across * down * area > MOST_PADDING * max(max_pixels, area):
        raise ImageTooLarge("the tiles of the image hold more pixels than are allowed")
    if len(layout.offsets) < across * down * layout.planes:
        raise EOFError("strips or tiles are missing")
    for plane in range(layout.planes):
        if layout.planes == 1:
            target, columns, stored = out, kept, layout.samples
        elif plane in kept:
            target, columns, stored = out[:, :, (place := kept.index(plane)) : place + 1], [0], 1
        else:
            continue
        for top, rows in _rows(data, layout, plane * across * down, across * down, stored):
            _place(target, _scaled(rows, layout, stored)[:, :, columns], top, layout, across)
    return out


def _place(
    target: NDArray[numpy.uint8], found: NDArray[numpy.uint8], top: int, layout: SampleLayout, across: int
) -> None:
    """Put samples where they belong; `top` counts rows as if all strips or tiles lay below each other."""
    high, last = layout.tile[1], top + len(found)
    if across == 1:
        part = target[top:last]
        part[:] = found[: len(part), : layout.width]
        return
    for number in range(top // high, -(-last // high)):
        first, end = max(top, number * high), min(last, (number + 1) * high)
        row, left = number // across * high + first - number * high, number % across * layout.tile[0]
        part = target[row : row + end - first, left : left + layout.tile[0]]
        part[:] = found[first - top : first - top + len(part), : part.shape[1]]


def _rows(
    data: bytes, layout: SampleLayout, first: int, count: int, stored: int
) -> Iterator[tuple[int, NDArray[numpy.uint8]]]:
    """Rows of bytes (rows, length) of strips or tiles, as if they lay below each other; some at a time.

    With each part comes the number of its first row.
    """
    length, high = (layout.tile[0] * stored * layout.bits + 7) // 8, layout.tile[1]
    step = max(1, BATCH // length)
    together = max(1, step // high)
    for start in range(0, count, together):
        end = min(start + together, count)
        # The last strip ends with the image; tiles reach beyond.
        bottom = end * high if layout.tiled else min(end * high, layout.height)
        total = bottom - start * high
        pieces = [_piece(data, layout, first + number, length * min(high, total)) for number in range(start, end)]
        if layout.compression == tags.NONE:
            plain = numpy.frombuffer(b"".join(pieces), numpy.uint8, length * total).reshape(total, length)
            yield from ((start * high + top, plain[top : top + step]) for top in range(0, total, step))
            continue
        unpacked = _unpacked(pieces, layout.compression, length, high, total)
        for top in range(0, total, step):
            part = unpacked.crop((0, top, length, min(top + step, total)))
            yield start * high + top, numpy.asarray(part)


def _piece(data: bytes, layout: SampleLayout, number: int, length: int) -> bytes:
    """The stored bytes of a strip or tile: at most `length`, where they are not compressed."""
    offset = layout.offsets[number]
    if layout.compression != tags.NONE:
        if number < len(layout.counts):
            length = layout.counts[number]
        else:
            after = bisect_right(layout.sorted_offsets, offset)
            length = (layout.sorted_offsets[after] if after < len(layout.sorted_offsets) else len(data)) - offset
        if offset + length > len(data) or length < 1:
            raise EOFError("a strip or tile is missing")
    piece = data[offset : offset + length]
    return piece.translate(_REVERSED) if layout.reversed_bits else piece


def _unpacked(pieces: list[bytes], compression: int, length: int, high: int, total: int) -> Image.Image:
    """Compressed strips of `high` rows each, as a grey image of as many columns as a row has bytes."""
    count, body, offsets = len(pieces), b"".join(pieces), [8]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece))
    lists = struct.pack(f"<{2 * count}I", *offsets, *map(len, pieces))
    start = 8 + len(body)
    fields = [
        (256, 4, 1, length),
        (257, 4, 1, total),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, tags.BLACK_IS_ZERO),
        (273, 4, count, start if count > 1 else 8),
        (277, 3, 1, 1),
        (278, 4, 1, high),
        (279, 4, count, start + 4 * count if count > 1 else len(body)),
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *one) for one in fields) + bytes(4)
    file = b"II*\0" + struct.pack("<I", start + len(lists)) + body + lists + directory
    with TiffImageFile(BytesIO(file)) as image:
        # Set aside here, because what Pillow would refuse as too many pixels are only their bytes.
        image.im = Image.new("L", (length, total)).im
        image.load()
        return image


def _scaled(rows: NDArray[numpy.uint8], layout: SampleLayout, stored: int) -> NDArray[numpy.uint8]:
    """Samples (rows, W, stored) of 8 bits, of rows of bytes; indices of a palette are not scaled."""
    count = layout.tile[0] * stored
    values = _values(rows, layout, count).reshape(len(rows), -1, stored)
    if layout.differences:
        values = numpy.cumsum(values, axis=1, dtype=values.dtype)
    if layout.bits != 8 and layout.meaning != tags.PALETTE:
        return eight_bits(values, (1 << layout.bits) - 1)
    return values.astype(numpy.uint8, copy=False)


def _values(rows: NDArray[numpy.uint8], layout: SampleLayout, count: int) -> NDArray[numpy.integer]:
    """The first `count` numbers of each row of bytes."""
    if layout.bits == 8:
        return rows[:, :count]
    if layout.bits == 16:
        return numpy.ascontiguousarray(rows).view(f"{layout.order}u2")[:, :count].astype(numpy.uint16)
    bits = numpy.unpackbits(rows, axis=1, count=count * layout.bits).reshape(len(rows), count, layout.bits)
    wide = numpy.zeros((len(rows), count, 16), dtype=numpy.uint8)
    wide[:, :, 16 - layout.bits :] = bits
    return numpy.packbits(wide, axis=2).view(">u2")[:, :, 0].astype(numpy.uint16)


def refusal(data: bytes) -> str | None:
    """Why a TIFF is of a kind that is not supported; None where it is not."""
    try:
        directory = TiffDirectory.of(data)
        _check_raw(data, directory)
        SampleLayout.of(directory)
    except UnsupportedImage as error:
        return str(error)
    except (struct.error, ValueError, LookupError):
        pass
    return None
