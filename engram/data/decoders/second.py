"""Decoder 2: transparency over a background, depths and meanings of channels, grey by what is seen."""

from __future__ import annotations

import math
from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageChops
from PIL.GifImagePlugin import GifImageFile
from PIL.WebPImagePlugin import WebPImageFile

from engram.config.definition import InputShape
from engram.data.decoders import avif, bmp, jpeg, png, tiff
from engram.data.decoders.layers import Layers, layers
from engram.data.decoders.sizes import announced_size, check_pixels
from engram.errors import WrongChannels

WHITE = "#ffffff"


def _gif(data: bytes, max_pixels: int) -> Layers:
    """The first frame; what it leaves free of the screen is transparent."""
    with GifImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        frame = image.tile[0].extents if hasattr(image.tile[0], "extents") else image.tile[0][1]
        key = image.info.get("transparency")
        found = layers(image)
        if key is not None and image.mode == "L":
            return Layers(found.colours, found.colours.point([255 * (value != key) for value in range(256)]))
    if key is None and frame != (0, 0, *found.colours.size):
        alpha = Image.new("L", found.colours.size, 0)
        alpha.paste(255, frame)
        return Layers(found.colours, alpha)
    return found


def _webp(data: bytes, max_pixels: int) -> Layers:
    with WebPImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        return layers(image, 0 if data[12:16] == b"VP8L" else jpeg.GREY_TOLERANCE)


READERS: dict[str, Callable[[bytes, int], Layers]] = {
    "PNG": png.read,
    "JPEG": jpeg.read,
    "WebP": _webp,
    "GIF": _gif,
    "TIFF": tiff.read,
    "BMP": bmp.read,
    "AVIF": avif.read,
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
    found = READERS[kind](data, max_pixels)
    flat = found.over(_background(shape))
    if shape.channels == 3 and flat.mode == "L":
        flat = flat.convert("RGB")
    elif shape.channels == 1 and flat.mode == "RGB":
        if not shape.convert and not _is_grey(flat, found.tolerance):
            raise WrongChannels(
                "the image is colour and the model takes grey images; "
                "a model created with input.convert = true takes both and converts"
            )
        flat = flat.convert("L")
    # One that has the model's size already is taken as it is, also where others are cropped.
    return flat if flat.size == (shape.width, shape.height) else _fitted(flat, shape)


def _fitted(image: Image.Image, shape: InputShape) -> Image.Image:
    """An image of another size, resized with an antialiased filter; cropped as torchvision and timm do it."""
    bicubic = shape.interpolation == "bicubic"
    filter_ = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    wanted = shape.width, shape.height
    if shape.fit == "stretch":
        return image.resize(wanted, filter_)
    covering = [math.floor(side / shape.crop) for side in wanted]
    scale = max(side / given for side, given in zip(covering, image.size, strict=True))
    sides = [max(side, int(given * scale + 1e-6)) for side, given in zip(wanted, image.size, strict=True)]
    first, second = (round((side - kept) / 2) for side, kept in zip(sides, wanted, strict=True))
    whole = image.resize((sides[0], sides[1]), filter_)
    return whole.crop((first, second, first + wanted[0], second + wanted[1]))


def _background(shape: InputShape) -> tuple[int, int, int]:
    """What lies behind transparency; of a grey model, the grey that its colour is turned to."""
    red, green, blue = bytes.fromhex((shape.background or WHITE)[1:])
    if shape.channels == 3:
        return red, green, blue
    # As Pillow does it: ITU-R BT.601, in 16 bits.
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey, grey, grey


def _is_grey(image: Image.Image, tolerance: int) -> bool:
    """Whether no pixel's red, green and blue differ by more than `tolerance`."""
    red, green, blue = image.split()
    pairs = ((red, green), (green, blue), (red, blue))
    # A grey image is looked at three times, a coloured one mostly once.
    return all(ImageChops.difference(one, other).getextrema()[1] <= tolerance for one, other in pairs)  # type: ignore[operator]
