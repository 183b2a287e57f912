"""Decoder 1, that of 0.1.0: transparency over black, all else as Pillow gives it; it never changes."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engram.config.definition import InputShape
from engram.data.decoders import png
from engram.data.decoders.damage import DAMAGE
from engram.data.decoders.sizes import announced_size, check_pixels
from engram.errors import UnsupportedImage, WrongChannels

GREY_MODES = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"})
COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})

# The readers are called by themselves and not through `Image.open`, whose limit on pixels is a global of the process
# and whose list of formats is whatever else was imported.
READERS: dict[str, Callable[[BytesIO], ImageFile]] = {
    "PNG": PngImageFile,
    "JPEG": JpegImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "TIFF": TiffImageFile,
    "BMP": BmpImageFile,
}
"""The reader of each format."""


def read(data: bytes, kind: str, shape: InputShape, max_pixels: int) -> Image.Image:
    """An image of a format of `READERS`, of the model's channels, height and width.

    Raises
    ------
    ImageTooLarge, UnsupportedImage, WrongChannels
    Exception
        One of `DAMAGE`.
    """
    check_pixels(announced_size(data), max_pixels)
    if kind == "PNG":
        data = png.without_excess(data)
    with READERS[kind](BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        if isinstance(image, TiffImageFile):
            check_pixels((int(image.tag_v2.get(322, 0)), int(image.tag_v2.get(323, 0))), max_pixels)
        grey = _is_grey(image.mode)
        _check_channels(grey, shape)
        return _fit(image, grey, shape)


def _is_grey(mode: str) -> bool:
    if mode not in GREY_MODES | COLOUR_MODES:
        raise UnsupportedImage(f"pixels of the kind {mode} are not supported; use 8 or 16 bits a channel")
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
