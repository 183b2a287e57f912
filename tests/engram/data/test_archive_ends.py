"""Tests of archives one after the other, and of other bytes before and after one."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from engram.data.archives import inspect, read
from engram.data.containers import ArchiveLimits, walk
from engram.errors import ArchiveError, NotAnArchive
from tests.engram.data.test_archives import PAIR, SHAPE, pack, png

TARS = ("tar", "tar.gz", "tar.bz2", "tar.xz")
BIRDS = {f"bird/{i}.png": png(60 + i) for i in range(2)}
COWS = {f"cow/{i}.png": png(80 + i) for i in range(2)}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def packed(here: Path, files: dict[str, bytes], kind: str) -> bytes:
    return pack(here, files, kind).read_bytes()


@pytest.mark.parametrize("kind", TARS)
def test_tars_one_after_the_other_are_read_as_one(here: Path, kind: str) -> None:
    here.write_bytes(b"".join(packed(here, files, kind) for files in (PAIR, BIRDS, COWS)))
    assert inspect(here).classes == ("bird", "cat", "cow", "dog")
    examples = read(here, SHAPE).examples
    assert examples.images[:, 0, 0, 0].tolist() == [60, 61, 10, 20, 80, 81, 30, 40]


@pytest.mark.parametrize("kind", TARS)
def test_padding_between_and_after_tars_is_passed_over(here: Path, kind: str) -> None:
    first, second = (packed(here, files, kind) for files in (PAIR, BIRDS))
    for gap in (512, 512 * 333, 512 * 2000):
        here.write_bytes(first + bytes(gap) + second + bytes(gap + 100))
        assert inspect(here).classes == ("bird", "cat", "dog")


@pytest.mark.parametrize("level", [0, 9])
def test_tars_packed_as_one_stream_are_read_as_one(here: Path, level: int) -> None:
    first, second = (packed(here, files, "tar") for files in (PAIR, BIRDS))
    here.write_bytes(gzip.compress(first + bytes(512 * 300) + second, level))
    assert inspect(here).classes == ("bird", "cat", "dog")
    assert read(here, SHAPE).examples.counts() == (2, 2, 2)


@pytest.mark.parametrize("kind", TARS)
def test_a_second_tar_with_the_first_ones_files_is_refused(here: Path, kind: str) -> None:
    here.write_bytes(packed(here, PAIR, kind) * 2)
    with pytest.raises(ArchiveError, match="twice"):
        inspect(here)


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize(
    "rest", [b"garbage", bytes(512) + b"x", b"\x1f", b"x" * 100_000, b"\x1f\x8b", b"PK\3\4" + bytes(600)]
)
def test_other_bytes_behind_a_tar_are_refused(here: Path, kind: str, rest: bytes) -> None:
    here.write_bytes(packed(here, PAIR, kind) + rest)
    for ask in (inspect, lambda path: read(path, SHAPE)):
        with pytest.raises(NotAnArchive):
            ask(here)


@pytest.mark.parametrize("kind", TARS)
def test_a_second_tar_that_is_cut_off_is_refused(here: Path, kind: str) -> None:
    first, second = (packed(here, files, kind) for files in (PAIR, BIRDS))
    for share in (0.1, 0.5, 0.9):
        here.write_bytes(first + second[: int(share * len(second) * (0.2 if kind == "tar" else 1))])
        with pytest.raises(NotAnArchive):
            inspect(here)


@pytest.mark.parametrize(("one", "other"), [("tar", "tar.gz"), ("tar.gz", "tar"), ("tar.xz", "tar.gz"), ("tar", "zip")])
def test_archives_of_two_kinds_one_after_the_other_are_refused(here: Path, one: str, other: str) -> None:
    here.write_bytes(packed(here, PAIR, one) + packed(here, BIRDS, other))
    with pytest.raises(NotAnArchive):
        inspect(here)


def test_zips_one_after_the_other_are_refused(here: Path) -> None:
    first, second = (packed(here, files, "zip") for files in (PAIR, BIRDS | COWS))
    empty = packed(here, {}, "zip")
    for data in (first + second, first + empty, empty + first):
        here.write_bytes(data)
        with pytest.raises(NotAnArchive, match="before the zip's first entry"):
            inspect(here)


@pytest.mark.parametrize("rest", [b"garbage", b"\0garbage", b"x" * 70_000, b"\r\n"])
def test_other_bytes_behind_a_zip_are_refused(here: Path, rest: bytes) -> None:
    data = packed(here, PAIR, "zip")
    here.write_bytes(data + rest)
    with pytest.raises(NotAnArchive):
        inspect(here)
    here.write_bytes(rest + data)
    with pytest.raises(NotAnArchive):
        inspect(here)


def test_a_zip_with_a_tar_behind_it_is_refused(here: Path) -> None:
    here.write_bytes(packed(here, PAIR, "zip") + packed(here, BIRDS, "tar"))
    with pytest.raises(NotAnArchive, match="after the zip's end"):
        inspect(here)


def test_a_zips_comment_and_padding_belong_to_it(here: Path) -> None:
    data = packed(here, PAIR, "zip")
    here.write_bytes(data + bytes(100))
    assert inspect(here).images == 4
    comment = b"from the camera in the yard"
    here.write_bytes(data[:-2] + len(comment).to_bytes(2, "little") + comment)
    assert inspect(here).images == 4


@pytest.mark.parametrize("kind", TARS)
def test_limits_hold_for_all_tars_together(here: Path, kind: str) -> None:
    here.write_bytes(packed(here, PAIR, kind) + packed(here, BIRDS, kind))
    assert len(list(walk(here, ArchiveLimits(max_entries=7)))) == 6
    with pytest.raises(ArchiveError, match="6 entries or more"):
        list(walk(here, ArchiveLimits(max_entries=6)))


@pytest.mark.parametrize(("packer", "name"), [(gzip, "gzip"), (bz2, "bzip2"), (lzma, "xz")])
def test_what_is_packed_and_no_tar_is_named(here: Path, packer: Any, name: str) -> None:
    insides = {
        "zip archive": packed(here, PAIR, "zip"),
        "gzip archive": packed(here, PAIR, "tar.gz"),
        "xz archive": packed(here, PAIR, "tar.xz"),
        "PNG": png(9),
        "text": b"name,label\n",
    }
    for known, data in insides.items():
        here.write_bytes(packer.compress(data))
        for ask in (inspect, lambda path: read(path, SHAPE)):
            with pytest.raises(
                NotAnArchive, match=f"packed as {name}, and what is inside is no tar: it begins as {known}$"
            ):
                ask(here)
    here.write_bytes(packer.compress(packed(here, PAIR, "zip"))[:-20])
    with pytest.raises(NotAnArchive):
        inspect(here)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(600), "; it begins as 7z archive"),
        (b"Rar!\x1a\7\0" + bytes(600), "; it begins as RAR archive"),
        (b"Rar!\x1a\7\1\0" + bytes(600), "; it begins as RAR archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "; it begins as zstd archive"),
        (png(9), "; it begins as PNG"),
        (b"neither zip nor tar", "; it begins as text"),
        (b"", "; it is empty"),
        (b"\1\2\3" + bytes(600), ""),
    ],
)
def test_what_is_no_archive_is_named(here: Path, data: bytes, words: str) -> None:
    here.write_bytes(data)
    with pytest.raises(NotAnArchive, match=f"^the file is neither a zip nor a tar archive{words}$"):
        inspect(here)
