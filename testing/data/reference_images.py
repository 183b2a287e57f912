"""Writer of `engram/data/reference/reference_images.zip`: one small image of each kind that is read.

`python -m testing.data.reference_images` writes it. Encoders differ from release to release, so that the file that is
there is the reference, not this program; it is run again only when a kind is added, under a new name.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy
from numpy.typing import NDArray
from PIL import Image

from testing.data.encoded_images import bmp_file, packed, png_chunk, png_file, tiff_file

TARGET = Path(__file__).parents[2] / "engram" / "data" / "reference" / "reference_images.zip"
HEIGHT, WIDTH = 24, 20
SEED = 13


def scene(channels: int) -> NDArray[numpy.uint8]:
    """Pixels (24, 20, channels): slopes, which codecs keep well, under a patch of noise, which they do not."""
    rows, columns = numpy.mgrid[:HEIGHT, :WIDTH]
    planes = [(rows * 9 + columns * (3 + 2 * number) + 40 * number) % 256 for number in range(channels)]
    found = numpy.stack(planes, axis=2).astype(numpy.uint8)
    found[8:16, 6:14] = numpy.random.default_rng(SEED).integers(0, 256, (8, 8, channels), dtype=numpy.uint8)
    return found


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _turned(number: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()


def images() -> Iterator[tuple[str, bytes]]:
    """Names and bytes of all of them."""
    grey, grey_alpha, rgb, rgba = scene(1), scene(2), scene(3), scene(4)
    yield from _png(grey, grey_alpha, rgb, rgba)
    yield from _lossy(Image.fromarray(rgb), Image.fromarray(grey[:, :, 0]), Image.fromarray(rgba))
    yield from _windows(grey, Image.fromarray(rgb), rgb)
    yield from _tiff(grey, grey_alpha, rgb, rgba)


def _png(
    grey: NDArray[numpy.uint8],
    grey_alpha: NDArray[numpy.uint8],
    rgb: NDArray[numpy.uint8],
    rgba: NDArray[numpy.uint8],
) -> Iterator[tuple[str, bytes]]:
    wide = numpy.uint16(257)
    for depth in (1, 2, 4, 8):
        yield f"png-grey-{depth}.png", png_file(grey >> (8 - depth), depth, 0)
    yield "png-grey-16.png", png_file(grey * wide, 16, 0)
    yield "png-grey-alpha-8.png", png_file(grey_alpha, 8, 4)
    yield "png-rgb-8.png", _saved(Image.fromarray(rgb), "PNG")
    yield "png-rgb-8-interlaced.png", png_file(rgb, 8, 2, interlaced=True)
    yield "png-rgb-8-colour-key.png", png_file(rgb, 8, 2, png_chunk(b"tRNS", bytes([0, rgb[0, 0, 0], 0, 40, 0, 80])))
    yield "png-rgb-16.png", png_file(rgb * wide, 16, 2)
    yield "png-rgba-8.png", _saved(Image.fromarray(rgba), "PNG")
    yield "png-rgba-16.png", png_file(rgba * wide, 16, 6)
    palette = png_chunk(b"PLTE", bytes(range(7, 7 + 48 * 5, 5)))
    yield "png-palette-4.png", png_file(grey >> 4, 4, 3, palette)
    yield (
        "png-palette-4-alpha.png",
        png_file(grey >> 4, 4, 3, palette, png_chunk(b"tRNS", bytes(range(0, 256, 17)))),
    )
    yield "png-rgb-8-turned.png", _saved(Image.fromarray(rgb), "PNG", exif=_turned(8))


def _lossy(rgb: Image.Image, grey: Image.Image, rgba: Image.Image) -> Iterator[tuple[str, bytes]]:
    yield "jpeg-rgb-444.jpg", _saved(rgb, "JPEG", quality=90, subsampling=0)
    yield "jpeg-rgb-420.jpg", _saved(rgb, "JPEG", quality=75, subsampling=2)
    yield "jpeg-rgb-progressive.jpg", _saved(rgb, "JPEG", quality=85, progressive=True)
    yield "jpeg-grey.jpg", _saved(grey, "JPEG", quality=80)
    yield "jpeg-cmyk.jpg", _saved(rgb.convert("CMYK"), "JPEG", quality=90)
    yield "jpeg-rgb-turned.jpg", _saved(rgb, "JPEG", quality=90, exif=_turned(6))
    yield "webp-lossy.webp", _saved(rgb, "WEBP", quality=80)
    yield "webp-lossless.webp", _saved(rgb, "WEBP", lossless=True)
    yield "webp-lossy-alpha.webp", _saved(rgba, "WEBP", quality=80)
    yield "webp-lossless-alpha.webp", _saved(rgba, "WEBP", lossless=True, exact=True)


def _windows(grey: NDArray[numpy.uint8], rgb: Image.Image, pixels: NDArray[numpy.uint8]) -> Iterator[tuple[str, bytes]]:
    palette = bytes(number % 251 for number in range(16 * 4))
    yield "bmp-palette-1.bmp", bmp_file(packed(grey >> 7, 1), (WIDTH, HEIGHT), 1, palette=palette[20:28])
    rows = packed(grey >> 4, 4)
    yield "bmp-palette-4-top-down.bmp", bmp_file(rows, (WIDTH, HEIGHT), 4, palette=palette, top_down=True)
    runs = b"".join(b"".join(bytes([1, value >> 4]) for value in row.tobytes()) + b"\0\0" for row in grey[::-1])
    yield "bmp-palette-8-runs.bmp", bmp_file(runs + b"\0\1", (WIDTH, HEIGHT), 8, compression=1, palette=palette)
    wide = pixels.astype(numpy.uint16)
    high = (wide[:, :, 0] >> 3 << 11) + (wide[:, :, 1] >> 2 << 5) + (wide[:, :, 2] >> 3)
    rows = [row.astype("<u2").tobytes() for row in high]
    yield "bmp-565.bmp", bmp_file(rows, (WIDTH, HEIGHT), 16, compression=3, masks=(0xF800, 0x07E0, 0x001F))
    yield "bmp-24.bmp", _saved(rgb, "BMP")
    yield "gif.gif", _saved(rgb.quantize(32), "GIF")
    yield "gif-transparent.gif", _saved(rgb.quantize(16), "GIF", transparency=3)


def _tiff(
    grey: NDArray[numpy.uint8],
    grey_alpha: NDArray[numpy.uint8],
    rgb: NDArray[numpy.uint8],
    rgba: NDArray[numpy.uint8],
) -> Iterator[tuple[str, bytes]]:
    wide = numpy.uint16(257)
    yield "tiff-grey-8-white-is-zero-lzw.tif", tiff_file(grey, 8, 0, compression=5, predictor=2)
    yield "tiff-grey-16-big-endian.tif", tiff_file(grey * wide, 16, 1, order=">")
    yield "tiff-rgb-8-tiled-deflate.tif", tiff_file(rgb, 8, 2, tile=16, compression=8)
    yield "tiff-rgba-8-packbits.tif", tiff_file(rgba, 8, 2, compression=32773, tags=[(338, 3, [2])])
    yield "tiff-cmyk-8.tif", tiff_file(rgba, 8, 5)
    palette = [value * 257 for value in range(5, 245, 5)]
    yield "tiff-palette-4.tif", tiff_file(grey >> 4, 4, 3, tags=[(320, 3, palette)])
    yield "tiff-group4.tif", _saved(Image.fromarray(grey[:, :, 0]).convert("1"), "TIFF", compression="group4")
    yield "tiff-jpeg.tif", _saved(Image.fromarray(rgb), "TIFF", compression="jpeg")


def write(target: Path) -> None:
    """Write all images into a zip of fixed order and dates."""
    with zipfile.ZipFile(target, "w") as packed_images:
        for name, data in images():
            packed_images.writestr(zipfile.ZipInfo(name), data)


if __name__ == "__main__":
    write(TARGET)
