"""Colours of an image and the transparency over them, laid over a background."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from engram.data.decoders.damage import DAMAGE
from engram.errors import UnsupportedImage

ROWS = 256
"""Rows of pixels that are computed at once, so that a large image needs little more memory than itself."""

ORIENTATION = 0x0112
"""Tag of EXIF and TIFF that says which side of an image is up."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of each orientation upright."""


@dataclass(frozen=True)
class Layers:
    """An upright image of 8 bits a channel before transparency is laid over anything."""

    colours: Image.Image
    """Of the mode `L` or `RGB`."""
    alpha: Image.Image | None = None
    """Opacity, of the mode `L`; None where all is opaque."""
    premultiplied: bool = False
    """Whether colours were multiplied by the opacity."""
    tolerance: int = 0
    """By how much channels of a grey image may differ: lossy formats do not keep grey exactly."""

    def over(self, background: tuple[int, int, int]) -> Image.Image:
        """One opaque image, `L` or `RGB`, of the colours and a background behind them."""
        if self.alpha is None or self.alpha.getextrema() == (255, 255):
            return self.colours
        colours = self.colours
        if colours.mode == "L" and len(set(background)) > 1:
            colours = colours.convert("RGB")
        if self.premultiplied:
            return _added(colours, self.alpha, background)
        flat = Image.new(colours.mode, colours.size, background[0] if colours.mode == "L" else background)
        flat.paste(colours, mask=self.alpha)
        return flat


def _added(colours: Image.Image, alpha: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Premultiplied colours, and behind them what of the background is seen."""
    seen, through = numpy.asarray(colours), numpy.asarray(alpha)  # (H, W) or (H, W, 3), and (H, W)
    behind = numpy.array(background if seen.ndim == 3 else background[0], dtype=numpy.uint16)
    out = numpy.empty_like(seen)
    for top in range(0, len(seen), ROWS):
        part = slice(top, top + ROWS)
        hidden = 255 - through[part].astype(numpy.uint16)
        if seen.ndim == 3:
            hidden = hidden[:, :, None]
        out[part] = numpy.minimum(seen[part] + (hidden * behind + 127) // 255, 255)
    return Image.fromarray(out)


def eight_bits(values: NDArray[numpy.integer], top: int = 65535) -> NDArray[numpy.uint8]:
    """Values of which `top` is white, scaled to 0 to 255 and rounded; of any shape (H, ...)."""
    out = numpy.empty(values.shape, dtype=numpy.uint8)
    for first in range(0, len(values), ROWS):
        part = slice(first, first + ROWS)
        out[part] = (values[part].astype(numpy.uint32) * 255 + top // 2) // top
    return out


def orientation(image: Image.Image) -> int:
    """Which side is up, by EXIF or XMP; 1 where nothing sound is said."""
    if isinstance(image, PngImageFile) and not image.info:  # where it would have to stand, as it mostly does not
        return 1
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except DAMAGE:
        # Cameras and editors write broken EXIF into sound images.
        return 1
    return found if isinstance(found, int) else 1


def turned(image: Image.Image, side: int) -> Image.Image:
    """An image of this orientation, upright."""
    return image.transpose(TURNS[side]) if side in TURNS else image


def layers(image: Image.Image, tolerance: int = 0) -> Layers:
    """What Pillow read, upright.

    Raises
    ------
    UnsupportedImage
        Pixels of a kind that has no agreed way to 8 bits.
    """
    image.load()
    upright = turned(image, orientation(image))
    mode = upright.mode
    if mode == "P":
        mode = "RGBA" if "transparency" in upright.info else "RGB"
        upright = upright.convert(mode)
    elif mode == "PA":
        mode, upright = "RGBA", upright.convert("RGBA")
    if mode in ("L", "RGB"):
        return Layers(upright, tolerance=tolerance)
    if mode == "1":
        return Layers(upright.convert("L"))
    if mode in ("LA", "RGBA", "La", "RGBa"):
        *bands, alpha = upright.split()
        colours = bands[0] if len(bands) == 1 else Image.merge("RGB", bands)
        return Layers(colours, alpha, premultiplied=mode[-1] == "a", tolerance=tolerance)
    if mode in ("CMYK", "YCbCr", "RGBX"):
        return Layers(upright.convert("RGB"), tolerance=tolerance)
    raise UnsupportedImage(f"pixels of the kind {mode} are not supported; use 8 or 16 bits a channel")
