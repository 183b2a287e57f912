"""Handwritten digits of scikit-learn as five tasks of two classes, each an archive to upload."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 28
HELD_OUT = 0.25


@dataclass(frozen=True)
class DigitsTask:
    """Task of two digits: an archive to learn from, and images kept apart as (PNG, label)."""

    name: str
    archive: bytes
    held_out: tuple[tuple[bytes, str], ...]


def tasks(seed: int = 0) -> list[DigitsTask]:
    """Five tasks, `zero-one` to `eight-nine`; a quarter of each digit, drawn by `seed`, is kept apart.

    The images come with scikit-learn (8 x 8, from the UCI repository) and are smoothly enlarged to 28 x 28.
    """
    images, labels = load_digits(return_X_y=True)
    generator = numpy.random.default_rng(seed)
    train: dict[int, list[bytes]] = {}
    held_out: dict[int, list[bytes]] = {}
    for digit in range(10):
        pngs = [_png(pixels) for pixels in generator.permutation(images[labels == digit])]
        share = round(len(pngs) * HELD_OUT)
        held_out[digit], train[digit] = pngs[:share], pngs[share:]
    return [
        DigitsTask(
            name=f"{NAMES[first]}-{NAMES[first + 1]}",
            archive=_archive({NAMES[digit]: train[digit] for digit in (first, first + 1)}),
            held_out=tuple((png, NAMES[digit]) for digit in (first, first + 1) for png in held_out[digit]),
        )
        for first in range(0, 10, 2)
    ]


def write(output: Path, seed: int = 0) -> None:
    """Write the archives as `<task>.zip`, and what was kept apart as `held-out/<digit>-<number>.png`."""
    (output / "held-out").mkdir(parents=True, exist_ok=True)
    for task in tasks(seed):
        (output / f"{task.name}.zip").write_bytes(task.archive)
        for number, (png, label) in enumerate(task.held_out):
            (output / "held-out" / f"{label}-{number:03}.png").write_bytes(png)


def _png(pixels: numpy.ndarray[tuple[int], numpy.dtype[numpy.float64]]) -> bytes:
    """One image (64,) of values 0 to 16 as PNG."""
    small = Image.fromarray((pixels.reshape(8, 8) * (255 / 16)).round().astype(numpy.uint8))
    out = io.BytesIO()
    small.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def _archive(classes: dict[str, list[bytes]]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, pngs in classes.items():
            for number, png in enumerate(pngs):
                archive.writestr(zipfile.ZipInfo(f"{name}/{number:03}.png"), png)  # without the time of day
    return out.getvalue()
