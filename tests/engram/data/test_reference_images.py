"""Tests of the reference images: every decoder gives the very pixels that it gave when it was made."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import PIL
import pytest

from engram.config.definition import InputShape
from engram.data.pictures import DECODERS
from engram.data.reference.reference_images import reference_digest, reference_digests, reference_images
from engram.errors import InputError
from testing.data.reference_images import TARGET

RECORDED = json.loads((Path(__file__).parents[1] / "files" / "reference-digests.json").read_text(encoding="utf-8"))
"""Digests of each image under each decoder; those of decoder 1 were recorded with the code of 0.1.0."""

SHAPES = {"1x24x20": (1, 24, 20), "3x24x20": (3, 24, 20), "3x16x16": (3, 16, 16)}


def shaped(name: str) -> InputShape:
    channels, height, width = SHAPES[name]
    return InputShape(channels=channels, height=height, width=width)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_decoder_gives_the_pixels_that_it_always_gave(decoder: int, shape: str) -> None:
    found = reference_digests(shaped(shape), decoder)
    if (PIL.__version__, platform.machine()) == (RECORDED["pillow"], RECORDED["machine"]):
        assert found == RECORDED["decoders"][str(decoder)][shape]
    assert found == reference_digests(shaped(shape), decoder)


def test_the_digest_depends_on_shape_and_decoder_and_on_nothing_else() -> None:
    digests = {reference_digest(shaped(shape), decoder) for shape in SHAPES for decoder in DECODERS}
    assert len(digests) == len(SHAPES) * len(DECODERS)
    shape = shaped("3x16x16")
    assert reference_digest(shape, 1) == reference_digest(shape.model_copy(update={"convert": True}), 1)
    with pytest.raises(InputError, match="no decoder 3"):
        reference_digest(shape, 3)


def test_there_are_forty_small_images_of_every_format() -> None:
    images = reference_images()
    assert len(images) == 40
    assert {name.rpartition(".")[2] for name in images} == {"png", "jpg", "webp", "gif", "bmp", "tif"}
    assert max(map(len, images.values())) < 5000


def test_a_built_wheel_holds_the_images(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    root = TARGET.parents[3]
    shutil.copytree(root / "engram", tmp_path / "engram", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    program = "import setuptools.build_meta as backend; backend.build_wheel('.')"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert packed.read("engram/data/reference/reference_images.zip") == TARGET.read_bytes()
