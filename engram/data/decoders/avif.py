"""AVIF (AV1 Image File Format): the size by its header, and its pixels where Pillow can read them."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO

from PIL import features

from engram.data.decoders.jpeg import GREY_TOLERANCE
from engram.data.decoders.layers import Layers, layers
from engram.data.decoders.sizes import check_pixels
from engram.errors import UnsupportedImage

_PATH = {b"": (b"meta",), b"meta": (b"iprp",), b"iprp": (b"ipco",), b"ipco": (b"ispe",)}
"""Which boxes lie in which on the way to the sizes."""


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box (ISO/IEC 14496-12)."""
    while start + 8 <= end:
        length, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if length == 1:
            length, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        stop = start + length if length else end
        if (length and length < head) or stop > end:
            return
        yield kind, start + head, stop
        start = stop


def _sizes(data: bytes, kind: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    for found, first, last in _boxes(data, start, end):
        if found not in _PATH[kind]:
            continue
        if found == b"ispe":
            yield (
                int.from_bytes(data[first + 4 : first + 8], "big"),
                int.from_bytes(data[first + 8 : first + 12], "big"),
            )
        else:
            # `meta` begins with its version and flags.
            yield from _sizes(data, found, first + 4 * (found == b"meta"), last)


def read(data: bytes, max_pixels: int) -> Layers:
    """Colours and transparency of an AVIF image, of the first where there are several.

    Raises
    ------
    ImageTooLarge, UnsupportedImage
    Exception
        One of `DAMAGE`.
    """
    if not features.check("avif"):
        raise UnsupportedImage("AVIF is not supported: this Pillow was built without it")
    # Pillow 11.3 is the first that has this module.
    from PIL.AvifImagePlugin import AvifImageFile

    for size in _sizes(data, b"", 0, len(data)):
        check_pixels(size, max_pixels)
    try:
        with AvifImageFile(BytesIO(data)) as image:
            check_pixels(image.size, max_pixels)
            return layers(image, GREY_TOLERANCE)
    except RuntimeError as error:  # by which Pillow tells most of what libavif has to say
        if "Not implemented" in str(error):
            raise UnsupportedImage("AVIF of this kind is not supported by libavif") from error
        raise OSError("damaged AVIF") from error
