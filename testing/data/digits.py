"""Images and archives of scikit-learn's handwritten digits, and a small model for them."""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy
from PIL import Image
from sklearn.datasets import load_digits

SHAPE = {"channels": 1, "height": 8, "width": 8}
"""Input shape of the digits."""

FEW_FEATURES = {"features": 256, "patch": 3}
"""Small commons."""

SMALL_MODEL: dict[str, Any] = {"backbone": "mlp", "input": SHAPE, "width": 0.25, "commons": FEW_FEATURES}
"""A model that learns a task in about a second."""

QUICK = {"epochs": 2, "batch_size": 32, "rounds": 1, "recovery_epochs": 0}
"""Training options for tests that do not depend on accuracy."""


@cache
def _images() -> tuple[Any, Any]:
    digits = load_digits()
    return (digits.images * 255 / 16).astype(numpy.uint8), digits.target


def pixels(digit: int, index: int) -> Any:
    """The array (8, 8) uint8 of the `index`-th image of `digit`; there are at least 174 of each."""
    images, labels = _images()
    return images[labels == digit][index]


def png(digit: int, index: int) -> bytes:
    """The `index`-th image of `digit` as PNG."""
    file = BytesIO()
    Image.fromarray(pixels(digit, index)).save(file, "PNG")
    return file.getvalue()


def archive(digits: tuple[int, ...], count: int = 60, extra: dict[str, bytes] | None = None) -> bytes:
    """A zip of the first `count` images of each digit, with `extra` files by path."""
    file = BytesIO()
    with ZipFile(file, "w") as packed:
        for digit in digits:
            for index in range(count):
                # An entry with the current time would change the bytes.
                packed.writestr(ZipInfo(f"digit-{digit}/{index:03d}.png"), png(digit, index))
        for path, data in (extra or {}).items():
            packed.writestr(ZipInfo(path), data)
    return file.getvalue()
