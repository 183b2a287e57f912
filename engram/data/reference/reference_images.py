"""Digest of the pixels that this machine makes of forty small images of every kind.

The images are part of the package. Where codecs are exchanged (libjpeg, libtiff, zlib and others, by way of Pillow),
pixels may change in their last bits, and answers with them. The digest tells.
"""

from __future__ import annotations

import hashlib
import zipfile
from importlib import resources
from io import BytesIO

from engram.config.definition import InputShape
from engram.data.pictures import pixels


def reference_images() -> dict[str, bytes]:
    """The encoded images by their names, in a fixed order."""
    data = resources.files("engram.data.reference").joinpath("reference_images.zip").read_bytes()
    with zipfile.ZipFile(BytesIO(data)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def reference_digests(shape: InputShape, decoder: int) -> dict[str, str]:
    """SHA-256 of each image's pixels, decoded to `shape`, by the image's name; grey and colour are converted.

    Raises
    ------
    InputError
        A shape of another type, or a number of no decoder.
    """
    converting = shape.model_copy(update={"convert": True})
    return {
        name: hashlib.sha256(pixels(data, converting, decoder=decoder).tobytes()).hexdigest()
        for name, data in reference_images().items()
    }


def reference_digest(shape: InputShape, decoder: int) -> str:
    """SHA-256, as hexadecimal digits, over the names and pixels of all reference images, decoded to `shape`.

    Raises
    ------
    InputError
        As `reference_digests`.
    """
    lines = (f"{name} {digest}\n" for name, digest in reference_digests(shape, decoder).items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
