"""Pixels of one encoded image, of the model's shape and within limits; without PyTorch."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol, Self

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engram.config.definition import InputShape
from engram.errors import (
    EmptyImage,
    ImageError,
    ImageTooLarge,
    InputError,
    NotAnImage,
    TruncatedImage,
    WrongChannels,
    require_type,
)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"})
"""Endings of file names that claim one of the formats that are read."""

GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})

DAMAGE = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    Warning,
    struct.error,
    zlib.error,
)
"""What Pillow's readers are known to raise over bytes that were cut off or tampered with."""


class ImageLimitSettings(Protocol):
    """Settings that say how large images may be."""

    @property
    def max_image_pixels(self) -> int: ...

    @property
    def max_image_bytes(self) -> int: ...


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the pixels and bytes of one image."""

    max_pixels: int = 50_000_000
    """Height times width, judged by the header before anything is unpacked."""
    max_bytes: int = 64 * 2**20
    """Length of the encoded image."""

    @classmethod
    def of(cls, settings: ImageLimitSettings) -> Self:
        """The limits that `settings` say."""
        return cls(max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes)


IMAGE_LIMITS = ImageLimits()

DECODERS = (1, 2)
"""Numbers of the ways from an encoded image to pixels."""


def pixels(
    data: bytes, shape: InputShape, limits: ImageLimits = IMAGE_LIMITS, decoder: int = 2
) -> NDArray[numpy.uint8]:
    """Pixels (H, W, C) of one encoded image; arguments and errors are those of `engram.data.images.decode`."""
    _check_bytes(data)
    if decoder not in DECODERS:
        raise InputError(f"there is no decoder {decoder!r}; there are {sorted(DECODERS)}")
    require_type("the shape of images", shape, InputShape, InputError)
    require_type("limits of images", limits, ImageLimits, InputError)
    if not data:
        raise EmptyImage("the image has 0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; {limits.max_bytes} are allowed")
    reader = _reader(data)
    try:
        _check_pixels(_announced_size(data), limits)
        with reader(BytesIO(data)) as image:
            _check_pixels(image.size, limits)
            if isinstance(image, TiffImageFile):
                _check_pixels(_tile_size(image), limits)
            grey = _is_grey(image.mode)
            _check_channels(grey, shape)
            fitted = _fit(image, grey, shape)
    except DAMAGE as error:
        raise TruncatedImage("the image is cut off or damaged") from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"the image has more than {limits.max_pixels} pixels") from error
    # A copy, so that no buffer of Pillow lives on inside it.
    return numpy.array(fitted, dtype=numpy.uint8).reshape(shape.height, shape.width, shape.channels)  # (H, W, C)


def _check_bytes(data: object) -> None:
    if not isinstance(data, bytes | bytearray):
        raise ImageError(f"an encoded image is bytes, not of type {type(data).__name__}")


def _reader(data: bytes) -> Callable[[BytesIO], ImageFile]:
    """The one reader that claims these first bytes.

    The readers are called by themselves and not through `Image.open`, whose limit on pixels is a global of the process
    and whose list of formats is whatever else was imported.
    """
    head = data[:32]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if head.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WebPImageFile
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return TiffImageFile
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return BmpImageFile
    raise NotAnImage("these bytes are no PNG, JPEG, WebP, BMP, GIF or TIFF image")


def _announced_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header, for the formats whose readers set memory aside before they tell the size."""
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


def _tile_size(image: TiffImageFile) -> tuple[int, int]:
    return int(image.tag_v2.get(322, 0)), int(image.tag_v2.get(323, 0))


def _check_pixels(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageTooLarge(f"the image has {width} x {height} pixels; {limits.max_pixels} are allowed")


def _is_grey(mode: str) -> bool:
    if mode not in GREY_MODES | COLOUR_MODES:
        raise NotAnImage(f"pixels of the kind {mode} are not supported; use 8 or 16 bits a channel")
    return mode in GREY_MODES


def _check_channels(grey: bool, shape: InputShape) -> None:
    if grey == (shape.channels == 1) or shape.convert:
        return
    found, wanted = ("grey", "colour") if grey else ("colour", "grey")
    raise WrongChannels(
        f"the image is {found} and the model takes {wanted} images; "
        "a model created with input.convert = true takes both and converts"
    )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:
        # Cameras and editors write broken EXIF into sound images; the pixels are already here.
        return image


def _fit(image: Image.Image, grey: bool, shape: InputShape) -> Image.Image:
    """Upright, opaque, 8 bits a channel, of the model's channels, height and width."""
    image.load()
    flat = _upright(image)
    if flat.mode.startswith("I;16"):
        values = numpy.array(flat).astype(numpy.uint32)
        flat = Image.fromarray(((values * 255 + 32767) // 65535).astype(numpy.uint8))
    elif flat.has_transparency_data:
        with_alpha = flat.convert("LA" if grey else "RGBA")
        black = Image.new("L" if grey else "RGB", flat.size)
        black.paste(with_alpha.convert(black.mode), mask=with_alpha.getchannel("A"))
        flat = black
    mode = "L" if shape.channels == 1 else "RGB"
    if flat.mode != mode:
        # By way of RGB, because some colour spaces have no way of their own to grey.
        flat = flat.convert(mode) if grey or mode == "RGB" else flat.convert("RGB").convert(mode)
    if flat.size != (shape.width, shape.height):
        flat = flat.resize((shape.width, shape.height), Image.Resampling.BILINEAR)
    return flat
