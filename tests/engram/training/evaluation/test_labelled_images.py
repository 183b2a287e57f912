"""Tests of archives of labelled images to evaluate on."""

from __future__ import annotations

from functools import partial
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image
from torch import Tensor

from engram.config.definition import Definition, InputShape
from engram.data.containers import ArchiveLimits
from engram.data.images import decode
from engram.data.labelled_images import LabelledImages
from engram.errors import BadLayout, Cancelled, NotAnImage, TooManyEntries, TooManyUnreadable
from testing.data.digits import SHAPE, pixels, png

PLAIN = Definition.model_validate({"backbone": "mlp", "input": SHAPE})


def opened(path: Path, files: dict[str, bytes], *definitions: Definition, entries: int = 1000) -> LabelledImages:
    with ZipFile(path / "images.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    limits = ArchiveLimits(max_entries=entries)
    return LabelledImages(path / "images.zip", limits, definitions or (PLAIN,), decode_alone)


def decode_alone(data: bytes, shape: InputShape, decoder: int) -> Tensor:
    return decode(data, shape, decoder=decoder)


def test_images_of_any_depth_are_read_and_others_left_out(tmp_path: Path) -> None:
    files = {
        "zero/a.png": png(0, 0),
        "top/low/one/b.png": png(1, 0),
        "one/c": png(1, 1),
        "one/notes.txt": b"words",
        "one/.hidden.png": png(1, 2),
        ".dot/d.png": png(1, 3),
        "one/broken.png": png(1, 4)[:60],
    }
    images = opened(tmp_path, files)
    assert images.plan.folders == (("one",), ("top", "low", "one"), ("zero",))
    found = {image.path: image for image in images.read()}
    assert {path: image.folder for path, image in found.items()} == {
        "zero/a.png": ("zero",),
        "top/low/one/b.png": ("top", "low", "one"),
        "one/c": ("one",),
    }
    assert torch.equal(found["one/c"].pixels[0], torch.from_numpy(pixels(1, 1))[None])
    assert [(one.name, one.code) for one in images.unreadable] == [("one/broken.png", "truncated_image")]
    assert images.plan.left_out.count == 3
    images.probe()


def test_each_version_sees_an_image_by_its_own_decoder(tmp_path: Path) -> None:
    file = BytesIO()
    Image.new("LA", (8, 8), (0, 0)).save(file, "PNG")
    dark, light = PLAIN.decoded_by({"decoder": 2, "background": "#000000"}), PLAIN
    (image,) = opened(tmp_path, {"clear/a.png": file.getvalue()}, dark, light).read()
    assert [float(one.float().mean()) for one in image.pixels] == [0.0, 255.0]


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ({"a.png": png(0, 0)}, BadLayout, "the folder of an image is its label"),
        ({"a/b.txt": b"words"}, BadLayout, "holds no images"),
        ({f"a/{number}.png": png(0, number) for number in range(9)}, TooManyEntries, "entries"),
    ],
)
def test_what_cannot_be_evaluated_on(
    tmp_path: Path, files: dict[str, bytes], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        opened(tmp_path, files, entries=8)


def test_images_none_of_which_can_be_read(tmp_path: Path) -> None:
    images = opened(tmp_path, {"a/b.png": b"no", "a/c.png": b"no"})
    with pytest.raises(NotAnImage, match="a/b"):
        images.probe()
    with pytest.raises(TooManyUnreadable, match="none of the images can be read"):
        list(images.read())


def test_reading_can_be_stopped(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    images = opened(tmp_path, {f"a/{number}.png": png(0, number) for number in range(9)})
    reading = images.read(partial(next, asked))
    assert [next(reading).path, next(reading).path] == ["a/0.png", "a/1.png"]
    with pytest.raises(Cancelled):
        next(reading)
