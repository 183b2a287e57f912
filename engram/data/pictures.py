"""Pixels of one encoded image, of the model's shape and within limits; without PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy
from numpy.typing import NDArray
from PIL import Image

from engram.config.definition import InputShape
from engram.data.cost.measure import measure
from engram.data.cost.tally import Cost
from engram.data.decoders import bmp, first, jpeg, second, tiff
from engram.data.decoders.damage import DAMAGE
from engram.data.formats import HEAD, READ_FORMATS, image_format
from engram.data.image_limits import IMAGE_LIMITS, ImageLimits
from engram.errors import (
    EmptyImage,
    ImageError,
    ImageTooLarge,
    InputError,
    NotAnImage,
    TruncatedImage,
    UnsupportedImage,
    require_type,
)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif"})
"""Endings of file names that claim one of the formats that are read."""


DECODERS: dict[int, Callable[[bytes, str, InputShape, int], Image.Image]] = {1: first.read, 2: second.read}
"""The ways from an encoded image to pixels, by their numbers."""

FORMATS = {1: frozenset(first.READERS), 2: frozenset(second.READERS)}
"""The formats that each reads."""

REFUSALS: dict[str, Callable[[bytes], str | None]] = {"JPEG": jpeg.refusal, "TIFF": tiff.refusal, "BMP": bmp.refusal}
"""What tells, by format, of a kind that is not supported."""


def checked(data: bytes, shape: InputShape, limits: ImageLimits = IMAGE_LIMITS, decoder: int | None = None) -> Cost:
    """What decoding an image takes, when there is no reason to refuse it before; errors are those of `pixels`."""
    _check_arguments(data, shape, limits, decoder)
    if not data:
        raise EmptyImage("the image has 0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"the image has {len(data)} bytes; {limits.max_bytes} are allowed")
    _format(data, shape.decoder if decoder is None else decoder)
    return measure(data, shape, limits)


def pixels(
    data: bytes, shape: InputShape, limits: ImageLimits = IMAGE_LIMITS, decoder: int | None = None
) -> NDArray[numpy.uint8]:
    """Pixels (H, W, C) of one encoded image; arguments and errors are those of `engram.data.images.decode`."""
    checked(data, shape, limits, decoder)
    return checked_pixels(data, shape, limits, decoder)


def checked_pixels(
    data: bytes, shape: InputShape, limits: ImageLimits = IMAGE_LIMITS, decoder: int | None = None
) -> NDArray[numpy.uint8]:
    """As `pixels`, of an image that is `checked`."""
    data, number = bytes(data), shape.decoder if decoder is None else decoder
    kind = _format(data, number)
    try:
        fitted = _fitted(data, kind, shape, limits, number)
    except DAMAGE as error:
        raise _unreadable(data, kind, limits, number) from error
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(f"the image has more than {limits.max_pixels} pixels") from error
    # A copy, so that no buffer of Pillow lives on inside it.
    return numpy.array(fitted, dtype=numpy.uint8).reshape(shape.height, shape.width, shape.channels)  # (H, W, C)


def _check_arguments(data: object, shape: object, limits: object, decoder: object) -> None:
    if not isinstance(data, bytes | bytearray):
        raise ImageError(f"an encoded image is bytes, not of type {type(data).__name__}")
    require_type("the shape of images", shape, InputShape, InputError)
    require_type("limits of images", limits, ImageLimits, InputError)
    if decoder is not None and decoder not in DECODERS:
        raise InputError(f"there is no decoder {decoder!r}; there are {sorted(DECODERS)}")


def _format(data: bytes, decoder: int) -> str:
    """The format that these first bytes claim."""
    kind = image_format(data[:HEAD])
    if kind in FORMATS[decoder]:
        return str(kind)
    if kind in READ_FORMATS:
        raise NotAnImage(f"this is an image of the format {kind}, which decoder {decoder} of models does not read")
    found = "" if kind is None else f" but of the format {kind}"
    raise NotAnImage(f"these bytes are no PNG, JPEG, WebP, AVIF, BMP, GIF or TIFF image{found}")


def _fitted(data: bytes, kind: str, shape: InputShape, limits: ImageLimits, decoder: int) -> Image.Image:
    read = DECODERS[decoder]
    try:
        return read(data, kind, shape, limits.max_pixels)
    except DAMAGE:
        if kind != "JPEG" or (whole := jpeg.completed(data)) is None:
            raise
        return read(whole, kind, shape, limits.max_pixels)


def _unreadable(data: bytes, kind: str, limits: ImageLimits, decoder: int) -> ImageError:
    """Why an image could not be read: it is damaged, unless its kind is one that is not supported."""
    try:
        if reason := REFUSALS[kind](data) if kind in REFUSALS else None:
            return UnsupportedImage(reason)
        if decoder == 1:
            second.READERS[kind](data, limits.max_pixels)
            return UnsupportedImage(f"decoder 1 of models does not read {kind} images of this kind; decoder 2 does")
    except (*DAMAGE, ImageError, Image.DecompressionBombError):
        pass
    return TruncatedImage("the image is cut off or damaged")
