"""Tests of the sentences of refusals: each says what is wrong with which entry, and what to do."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engram.config.definition import InputShape
from engram.data.archives import inspect, probe, read
from engram.data.containers import ArchiveLimits
from engram.data.examples import ClassesNeeded
from engram.errors import ArchiveError, ArchiveTooLarge, TooFewClasses, TooFewImages
from tests.engram.data.test_archives import PAIR, pack, png


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def patched(path: Path, offset: int, value: int) -> Path:
    """A zip with one byte set in every entry of its directory."""
    data = bytearray(pack(path, PAIR).read_bytes())
    at = -1
    while (at := data.find(b"PK\1\2", at + 1)) >= 0:
        data[at + offset] = value
    path.write_bytes(data)
    return path


def lzma(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, data in PAIR.items():
            archive.writestr(name, data)
    return path


def sparse(path: Path) -> Path:
    pack(path, PAIR, "tar")
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("cat/3.png")
        member.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(member)
    return path


def appended(path: Path) -> Path:
    pack(path, PAIR, "tar")
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.size = len(png(1))
        archive.addfile(member, io.BytesIO(png(1)))
    return path


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: patched(path, 8, 1), r"^'cat/1\.png' is encrypted; pack without a password$"),
        (lzma, r"^'cat/1\.png' is packed by LZMA, which is not read; pack by deflate"),
        (lambda path: patched(path, 10, 9), r"is packed by deflate64, which is not read"),
        (lambda path: patched(path, 10, 93), r"is packed by zstd, which is not read"),
        (lambda path: patched(path, 10, 77), r"is packed by method 77, which is not read"),
        (sparse, r"^'cat/3\.png' is stored as a sparse file; pack without --sparse$"),
        (appended, r"^the archive holds 'cat/1\.png' twice, as updates of archives leave it; pack anew$"),
        (lambda path: pack(path, PAIR | {"./cat//1.png": png(1)}), r"^the archive holds 'cat/1\.png' twice"),
    ],
)
def test_what_cannot_be_read_is_said(here: Path, write: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(ArchiveError, match=said) as caught:
        inspect(write(here))
    assert caught.value.code == "invalid_archive"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_file_that_is_too_large_is_named(here: Path, kind: str) -> None:
    path = pack(here, PAIR | {"dog/scan.tif": bytes(5000)}, kind)
    with pytest.raises(ArchiveTooLarge, match=r"^'dog/scan\.tif' unpacks to 5000 bytes; 4000 are allowed for a file$"):
        inspect(path, ArchiveLimits(max_entry_bytes=4000))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_what_is_junk_is_not_judged(here: Path, kind: str) -> None:
    path = pack(here, PAIR | {".git/objects/pack": bytes(5000)}, kind)
    assert inspect(path, ArchiveLimits(max_entry_bytes=4000)).images == 4


def test_one_class_is_taken_where_one_is_enough(here: Path) -> None:
    cats = {name: data for name, data in PAIR.items() if name.startswith("cat/")}
    shape = InputShape(channels=1, height=8, width=8)
    path, one = pack(here, cats), ClassesNeeded(1)
    with pytest.raises(TooFewClasses, match=r"^there is one class only, 'cat'; a task of rnf needs at least two$"):
        inspect(path, needed=ClassesNeeded(2, "a task of rnf"))
    assert inspect(path, needed=one).classes == ("cat",)
    probe(path, shape, needed=one)
    examples = read(path, shape, needed=one).examples
    assert (examples.classes, examples.counts()) == (("cat",), (2,))
    for refused in (inspect, lambda path: probe(path, shape), lambda path: read(path, shape)):
        with pytest.raises(TooFewClasses, match="a task needs at least two"):
            refused(path)
    with pytest.raises(TooFewImages):
        inspect(pack(here, {"cat/1.png": png(1)}), needed=one)
