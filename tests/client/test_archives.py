"""Tests of zips that are made while they are sent."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest
from engram_client.labelled.archives import CHUNK_BYTES, class_members, folder_members, zipped
from PIL import Image


def opened(data: bytes) -> ZipFile:
    archive = ZipFile(BytesIO(data))
    assert archive.testzip() is None
    return archive


def write(folder: Path, **files: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_a_folder_comes_out_as_it_is(tmp_path: Path) -> None:
    large = os.urandom(3 * CHUNK_BYTES + 1)
    write(tmp_path / "train" / "café", b=b"2", a=b"1", large=large)
    write(tmp_path / "train" / "empty")
    write(tmp_path / "val" / "café", c=b"")
    write(tmp_path / ".git", config=b"secret")
    (tmp_path / "train" / ".DS_Store").write_bytes(b"x")
    members = folder_members(tmp_path)
    pieces = list(zipped(members))
    archive = opened(b"".join(pieces))
    names = ["train/café/a", "train/café/b", "train/café/large", "train/empty/", "val/café/c"]
    assert archive.namelist() == names
    assert archive.read("train/café/large") == large
    assert all(entry.compress_type == ZIP_STORED for entry in archive.infolist())
    assert len(pieces) > 3
    assert max(map(len, pieces)) < 2 * CHUNK_BYTES + 200
    assert sum(one.size + one.overhead for one in members) + 22 == sum(map(len, pieces))


def test_the_same_images_are_the_same_bytes_later(tmp_path: Path) -> None:
    write(tmp_path / "a", x=b"1")
    before = b"".join(zipped(folder_members(tmp_path)))
    os.utime(tmp_path / "a" / "x", (1, 1))
    assert b"".join(zipped(folder_members(tmp_path))) == before


def test_links_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "real" / "a", x=b"1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "real" / "a" / "back").symlink_to(tmp_path / "real" / "a")
    (tmp_path / "real" / "a" / "y").symlink_to(tmp_path / "real" / "a" / "x")
    assert [one.name for one in folder_members(tmp_path / "data")] == ["a/x", "a/y"]
    (tmp_path / "real" / "a" / "z").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="z leads to nothing"):
        folder_members(tmp_path / "data")


def test_a_name_that_is_not_unicode_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a")
    Path(os.fsdecode(os.fsencode(tmp_path / "a") + b"/\xff.png")).write_bytes(b"1")
    with pytest.raises(ValueError, match="is not Unicode"):
        folder_members(tmp_path)


def test_classes_take_paths_bytes_and_pictures(tmp_path: Path) -> None:
    write(tmp_path, x=b"of a file")
    path = (tmp_path / "x").rename(tmp_path / "x.JPG")
    picture = Image.new("L", (2, 2), 7)
    printed = Image.new("CMYK", (2, 2))
    members = class_members({"cat": [path, b"bytes"], "dog": [picture, printed], "none": []})
    archive = opened(b"".join(zipped(members)))
    assert archive.namelist() == ["cat/000000.jpg", "cat/000001", "dog/000000", "dog/000001", "none/"]
    assert archive.read("cat/000000.jpg") == b"of a file"
    assert list(Image.open(BytesIO(archive.read("dog/000000"))).tobytes()) == [7] * 4
    assert Image.open(BytesIO(archive.read("dog/000001"))).mode == "CMYK"


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\nb"])
def test_a_class_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be called"):
        class_members({name: [b"x"]})


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(TypeError, match="no int"):
        class_members({"a": [3]})  # type: ignore[list-item]
