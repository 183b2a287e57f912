"""Images as tensors: decoding of one to the model's shape, and the checks of those that are given."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.image_limits import IMAGE_LIMITS, ImageLimits
from engram.data.pictures import SUFFIXES, pixels
from engram.errors import ImageError

__all__ = ["IMAGE_LIMITS", "SUFFIXES", "Decode", "ImageLimits", "as_tensor", "check_image", "check_images", "decode"]

Decode = Callable[[bytes, InputShape, int], Tensor]
"""Makes an image (C, H, W) uint8 of an encoded one, by the decoder of that number; raises ImageError."""


def decode(data: bytes, shape: InputShape, limits: ImageLimits = IMAGE_LIMITS, decoder: int | None = None) -> Tensor:
    """Decode one PNG, JPEG, WebP, BMP, GIF (its first frame), TIFF or AVIF image and fit it to `shape`.

    The orientation in EXIF is applied, transparency is laid over `shape.background`, channels are scaled to 8 bits, and
    the image is resized with an antialiased bilinear filter where its size differs. A grey model takes what looks grey,
    however it is stored, and coloured images where `shape.convert` has them turned grey; a colour model takes both.

    Parameters
    ----------
    decoder
        Number of the way from bytes to pixels, as in `Definition.decoder`; by default that of the model whose
        `definition.input` the shape is, and the newest for a shape made by hand. All this is said of 2; 1 is that of
        0.1.0, which lays transparency over black, reads no AVIF, and judges by the channels that are stored.

    Returns
    -------
    Tensor (C, H, W) of uint8 that owns its memory. Safe to call from many threads.

    Raises
    ------
    EmptyImage, NotAnImage, TruncatedImage
        The bytes hold no readable image of these formats.
    UnsupportedImage
        The image is sound, and of a kind that is not read, such as 12-bit JPEG.
    ImageTooLarge
        More bytes or pixels than `limits` allow.
    ImageTooCostly
        More scans or parts than `limits` allow, or more memory for decoding it.
    WrongChannels
        Colour for a grey model, or under decoder 1 the reverse, unless `shape.convert`.
    ImageError
        What is no bytes.
    InputError
        A shape or limits of another type, or a number of no decoder.
    """
    return as_tensor(pixels(data, shape, limits, decoder))


def as_tensor(found: NDArray[numpy.uint8]) -> Tensor:
    """Pixels (H, W, C) as a tensor (C, H, W) that owns its memory."""
    # Laid out again by torch, so that no buffer of numpy lives on inside it.
    return torch.from_numpy(found).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)


def check_image(image: object, shape: InputShape) -> None:
    """See that one image is a tensor (C, H, W) of uint8, of a model's size.

    Raises
    ------
    ImageError
    """
    _check_tensor(image, shape, batch=False)


def check_images(images: object, shape: InputShape) -> None:
    """See that images are a tensor (B, C, H, W) of uint8, of a model's size.

    Raises
    ------
    ImageError
    """
    _check_tensor(images, shape, batch=True)


def _check_tensor(given: object, shape: InputShape, *, batch: bool) -> None:
    wanted = f"a uint8 tensor ({'B, ' if batch else ''}{shape.channels}, {shape.height}, {shape.width})"
    if not isinstance(given, Tensor):
        raise ImageError(f"the model takes {wanted}, not a {type(given).__name__}; see engram.data.images.decode")
    sides = (shape.channels, shape.height, shape.width)
    if given.dtype != torch.uint8 or given.ndim != 3 + batch or given.shape[-3:] != sides:
        found = f"{str(given.dtype).removeprefix('torch.')} {tuple(given.shape)}"
        raise ImageError(f"the model takes {wanted}, not {found}; decode images with engram.data.images.decode")
