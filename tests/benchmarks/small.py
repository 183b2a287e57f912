"""Small data sets in the file formats of the benchmarks."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.harness.datasets import Tasks
from engram import Examples, InputShape
from testing.data.patterns import SIZE, bars

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_mnist(folder: Path, train: int = 6, test: int = 3) -> None:
    """`mnist.npz` with so many images of each digit, sorted by digit; every pixel encodes digit, part and number."""
    arrays: dict[str, Any] = {}
    for part, count, base in (("train", train, 0), ("test", test, 100)):
        digits = np.repeat(np.arange(10, dtype=np.uint8), count)
        numbers = np.tile(np.arange(count, dtype=np.uint8), 10)
        images = np.broadcast_to((base + 10 * digits + numbers)[:, None, None], (len(digits), 28, 28)).copy()
        images[:, 0, 0] = 255  # a mark that a permutation moves
        arrays |= {f"x_{part}": images, f"y_{part}": digits}
    np.savez(folder / "mnist.npz", **arrays)


def write_archive(path: Path, classes: tuple[str, ...], train: int = 3, test: int = 2) -> None:
    """A `.tar.xz` of JPEGs of one colour each: red encodes the class, green the part."""
    with tarfile.open(path, "w:xz") as file:
        for part, count, green in (("train", train, 0), ("test", test, 200)):
            file.addfile(_folder(part))
            for name in sorted(classes):
                file.addfile(_folder(f"{part}/{name}"))
                for number in range(count):
                    stream = io.BytesIO()
                    colour = (10 * classes.index(name), green, 128)
                    Image.new("RGB", (32, 32), colour).save(stream, format="JPEG", quality=95)
                    member = tarfile.TarInfo(f"{part}/{name}/{number:04d}.jpg")
                    member.size = len(stream.getvalue())
                    file.addfile(member, io.BytesIO(stream.getvalue()))


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def bar_tasks(count: int = 3) -> Tasks:
    """Tasks of two bars each, which can be learned in a second."""
    shape = InputShape(channels=1, height=SIZE, width=SIZE)
    whole = [bars(task) for task in range(count)]
    return Tasks(shape, tuple(_every(part, 0) for part in whole), tuple(_every(part, 1) for part in whole))


def _every(examples: Examples, start: int) -> Examples:
    """Every other pair of images, so that both halves have both classes."""
    rows = torch.arange(len(examples))
    return examples.subset(rows[(rows // 2) % 2 == start])
