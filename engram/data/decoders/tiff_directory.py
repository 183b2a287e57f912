"""Directory of a TIFF (Adobe TIFF 6.0, BigTIFF): tags, and how they say that samples are stored."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from engram.errors import UnsupportedImage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, MASK, SEPARATED, YCBCR, CIELAB = (0, 1, 2, 3, 4, 5, 6, 8)
"""Photometric interpretations."""

NONE, LZW, OLD_JPEG, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD = 1, 5, 6, 7, 8, 32773, 32946, 34925, 50000
"""Compressions."""

OF_BYTES = frozenset({NONE, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, LZMA, ZSTD})
"""Compressions of bytes, whatever these mean."""

OF_PICTURES = frozenset({2, 3, 4, OLD_JPEG, JPEG, 32809, 50001})
"""Compressions of pictures, that give what libtiff makes of them: fax, JPEG, ThunderScan and WebP."""

UNREAD = {
    34661: "JBIG",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34676: "SGI Log",
    34677: "SGI Log",
    34887: "LERC",
    34892: "lossy JPEG (DNG)",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
"""Compressions that are known and not read."""

MEANINGS = {
    MASK: "transparency masks",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter arrays",
    32844: "log luminance",
    32845: "log luminance and chromaticity",
    34892: "linear raw",
}
"""Photometric interpretations that are known and not read."""

FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}
"""Sample formats that have no agreed black and white."""

BASE = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, SEPARATED: 4, YCBCR: 3, CIELAB: 3}
"""Samples a pixel, without additional ones."""

ASSOCIATED, UNASSOCIATED, COREL = 1, 2, 999
"""Kinds of additional samples that are opacity: the colours were multiplied by it, or not; the last is Corel's."""

MOST_SAMPLES = 8
"""Samples a pixel; files with more are of measuring instruments, and no pictures."""

REC_601 = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the brightness of YCbCr, where a file does not say others."""

_TYPES = {1: "B", 3: "H", 4: "I", 5: "II", 13: "I", 16: "Q"}
"""Types of tags that are numbers, as `struct` names them."""


@dataclass(frozen=True)
class TiffDirectory:
    """The tags of the first image of a file that are whole numbers; fractions are two numbers each."""

    order: str
    """`<` or `>`."""
    tags: dict[int, tuple[int, ...]]

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Read the first directory of a file.

        Raises
        ------
        struct.error, KeyError
            It is cut off or damaged.
        """
        order = "<" if data.startswith(b"II") else ">"
        big = data[2:4] in (b"+\0", b"\0+")
        (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
        entry, room = (20, 8) if big else (12, 4)
        start += 8 if big else 2
        tags: dict[int, tuple[int, ...]] = {}
        for number in range(count):
            at = start + number * entry
            tag, kind, length = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, at)
            if kind not in _TYPES or tag in tags or length > len(data):
                continue
            form = f"{order}{length * len(_TYPES[kind])}{_TYPES[kind][0]}"
            at += entry - room
            if struct.calcsize(form) > room:
                (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, at)
            if at + struct.calcsize(form) <= len(data):
                tags[tag] = struct.unpack_from(form, data, at)
        return cls(order, tags)

    def all(self, tag: int, *default: int) -> tuple[int, ...]:
        """The numbers of a tag."""
        return self.tags.get(tag) or default

    def one(self, tag: int, default: int) -> int:
        """The first number of a tag."""
        return self.all(tag, default)[0]

    def luma_weights(self) -> tuple[float, float, float] | None:
        """Weights of red, green and blue in the brightness of YCbCr; None where they are `REC_601`.

        Raises
        ------
        UnsupportedImage
            They are no weights.
        """
        if 529 not in self.tags:
            return None
        stored = self.all(529)
        if len(stored) != 6 or not all(stored[1::2]):
            raise UnsupportedImage("TIFF of YCbCr with coefficients that are no three fractions is not supported")
        red, green, blue = (above / below for above, below in zip(stored[::2], stored[1::2], strict=True))
        if green <= 0 or abs(red + green + blue - 1) > 0.01:
            raise UnsupportedImage("TIFF of YCbCr with coefficients that do not add up to 1 is not supported")
        if all(abs(one - usual) < 0.0005 for one, usual in zip((red, green, blue), REC_601, strict=True)):
            return None
        return red, green, blue


@dataclass(frozen=True)
class SampleLayout:
    """How the samples of an image are stored and what they mean."""

    order: str
    width: int
    height: int
    bits: int
    """Of every sample."""
    samples: int
    """Stored for each pixel."""
    meaning: int
    """The photometric interpretation."""
    alpha: int | None
    """Which sample is opacity."""
    premultiplied: bool
    planes: int
    """One, or as many as samples where each has its own."""
    compression: int
    reversed_bits: bool
    """Whether the first bit of a byte is its lowest."""
    differences: bool
    """Whether a sample is stored as the difference from the one on its left."""
    tile: tuple[int, int]
    """Width and height of tiles, or the image's width and the height of strips."""
    tiled: bool
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    """Bytes of each tile or strip; empty where the file does not say."""

    @cached_property
    def sorted_offsets(self) -> tuple[int, ...]:
        """Where strips or tiles begin, in the order of the file."""
        return tuple(sorted(self.offsets))

    @property
    def base(self) -> int:
        """Samples that are colours."""
        return BASE[self.meaning]

    @classmethod
    def of(cls, directory: TiffDirectory) -> Self:
        """How a directory says that samples are stored.

        Raises
        ------
        UnsupportedImage
            The samples are of a kind that is not read.
        ValueError
            The directory contradicts itself.
        """
        one = directory.one
        width, height = one(256, 0), one(257, 0)
        if not width or not height:
            raise ValueError("no size")
        tiled = 324 in directory.tags
        tile = (one(322, 0), one(323, 0)) if tiled else (width, min(one(278, height) or height, height))
        if min(tile) < 1:
            raise ValueError("tiles without a size")
        compression = one(259, NONE)
        meaning = YCBCR if compression == OLD_JPEG else one(262, WHITE_IS_ZERO)
        _check_kind(directory, compression, meaning)
        bits, samples = _bits(directory, compression, meaning)
        alpha, premultiplied = _opacity(directory, meaning, samples)
        return cls(
            order=directory.order,
            width=width,
            height=height,
            bits=bits,
            samples=samples,
            meaning=meaning,
            alpha=alpha,
            premultiplied=premultiplied,
            planes=samples if one(284, 1) == 2 else 1,
            compression=compression,
            reversed_bits=one(266, 1) == 2,
            differences=_differences(directory, compression, bits),
            tile=tile,
            tiled=tiled,
            offsets=directory.all(324 if tiled else 273),
            counts=directory.all(325 if tiled else 279),
        )


def _check_kind(directory: TiffDirectory, compression: int, meaning: int) -> None:
    if compression not in OF_BYTES | OF_PICTURES:
        raise UnsupportedImage(f"TIFF with the compression {UNREAD.get(compression, compression)} is not supported")
    if meaning not in BASE:
        raise UnsupportedImage(f"TIFF of {MEANINGS.get(meaning, f'the interpretation {meaning}')} is not supported")
    if meaning == SEPARATED and directory.one(332, 1) != 1:
        raise UnsupportedImage("TIFF of inks other than CMYK is not supported")
    if unread := [FORMATS[kind] for kind in directory.all(339, 1) if kind in FORMATS]:
        bits = directory.one(258, 1)
        raise UnsupportedImage(
            f"TIFF of {unread[0]} with {bits} bits is not supported; use whole numbers of 8 or 16 bits a channel"
        )


def _bits(directory: TiffDirectory, compression: int, meaning: int) -> tuple[int, int]:
    """Bits of a sample, and samples a pixel."""
    stored = directory.all(258, 8 if compression == OLD_JPEG else 1)
    samples = directory.one(277, len(stored) if compression != OLD_JPEG else 3)
    if samples > MOST_SAMPLES:
        raise UnsupportedImage(f"TIFF with {samples} samples a pixel is not supported; {MOST_SAMPLES} are")
    if samples < BASE[meaning] and (compression, meaning, samples) != (JPEG, YCBCR, 1):
        raise UnsupportedImage(f"TIFF of the interpretation {meaning} with {samples} samples a pixel is not supported")
    if len(set(stored[:samples])) > 1:
        raise UnsupportedImage("TIFF whose channels have different numbers of bits is not supported")
    bits = stored[0]
    allowed = {PALETTE: range(1, 9), YCBCR: (8,), CIELAB: (8,)}.get(meaning, range(1, 17))
    if bits not in allowed or (compression == JPEG and bits != 8):
        raise UnsupportedImage(
            f"TIFF with {bits} bits a channel is not supported here; use 8" + (" or 16" if 16 in allowed else "")
        )
    return bits, samples


def _opacity(directory: TiffDirectory, meaning: int, samples: int) -> tuple[int | None, bool]:
    """Which sample is opacity, and whether the colours were multiplied by it."""
    more = samples - BASE[meaning]
    kinds = directory.all(338)
    if more > 0 and not kinds:
        # Writers of RGB with opacity forget to say so; of other kinds it is not known what more there is.
        if (meaning, more) == (RGB, 1):
            return BASE[meaning], False
        raise UnsupportedImage(f"TIFF with {samples} samples a pixel that does not say what they are is not supported")
    for number, kind in enumerate(kinds[: max(more, 0)]):
        if kind in (ASSOCIATED, UNASSOCIATED, COREL):
            return BASE[meaning] + number, kind == ASSOCIATED
    return None, False


def _differences(directory: TiffDirectory, compression: int, bits: int) -> bool:
    predictor = directory.one(317, 1)
    if compression in (NONE, PACKBITS) or compression not in OF_BYTES or predictor == 1:
        return False
    if predictor != 2 or bits not in (8, 16):
        raise UnsupportedImage(f"TIFF with the predictor {predictor} and {bits} bits a channel is not supported")
    return True
