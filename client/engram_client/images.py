"""Images as callers have them: paths, bytes, and pictures that can write themselves."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, Union, runtime_checkable


@runtime_checkable
class SavesImage(Protocol):
    """A picture that writes itself into a file, such as `PIL.Image.Image`."""

    def save(self, fp: Any, format: str | None = None) -> None:
        """Write the picture in a format such as `PNG`."""


ImageSource = Union[str, "os.PathLike[str]", bytes, bytearray, memoryview, SavesImage]
"""An image: a path, the bytes of a file, or a picture that can `save` itself."""


def encoded(image: ImageSource) -> bytes:
    """The bytes of the image's file.

    Raises
    ------
    OSError
        The file cannot be read.
    TypeError
        It is no image at all.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if isinstance(image, SavesImage):
        return _saved(image)
    raise TypeError(f"An image is a path, bytes or a picture that can save itself, and no {type(image).__name__}.")


def _saved(picture: SavesImage) -> bytes:
    """A picture as PNG, or as TIFF where PNG has no such colours (CMYK, for one)."""
    file = BytesIO()
    try:
        picture.save(file, format="PNG")
    except OSError:
        file = BytesIO()
        picture.save(file, format="TIFF")
    return file.getvalue()
