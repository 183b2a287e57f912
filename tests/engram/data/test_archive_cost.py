"""Tests of the cost of inspecting archives: calls, decoded images and interned strings."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from engram.config.definition import InputShape
from engram.data.archives import inspect, probe, read
from engram.data.containers import ArchiveLimits
from engram.errors import NotAnImage, TooManyEntries, WrongChannels


def test_the_time_of_an_inspection_grows_with_the_archive_and_not_with_its_square(tmp_path: Path) -> None:
    """Counted in calls, since a clock would judge the machine."""

    def calls(count: int) -> int:
        path = tmp_path / f"{count}.zip"
        with zipfile.ZipFile(path, "w") as file:
            for number in range(count):
                file.writestr(f"{number % 20:02}/{number:05}.png", b"x")
        counted = 0

        def count_call(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count_call)
        try:
            inspect(path, ArchiveLimits())
        finally:
            sys.setprofile(None)
        return counted

    assert calls(4000) < 5 * calls(1000)


def test_an_upload_of_the_wrong_kind_throughout_is_noticed_by_a_few_images(tmp_path: Path) -> None:
    def archive(images: list[bytes]) -> Path:
        path = tmp_path / "images.zip"
        with zipfile.ZipFile(path, "w") as file:
            for number, data in enumerate(images):
                file.writestr(f"{number % 2}/{number:03}.png", data)
        return path

    def png(mode: str) -> bytes:
        out = io.BytesIO()
        Image.new(mode, (8, 8), 50).save(out, "PNG")
        return out.getvalue()

    grey = InputShape(channels=1, height=8, width=8)
    with pytest.raises(WrongChannels, match=r"^'0/000\.png': the image is colour"):
        probe(archive([png("RGB")] * 100), grey)
    with pytest.raises(NotAnImage, match=r"^'0/000\.png': these bytes"):
        probe(archive([b"text"] * 4), grey)
    probe(archive([b"text"] * 40 + [png("L")] * 60), grey)


def test_names_of_images_stay_out_of_the_table_of_interned_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in (1, 2)]
    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "PNG")
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, out.getvalue())
    interned: list[str] = []

    def spy(name: str) -> str:
        interned.append(name)
        return name

    monkeypatch.setattr(sys, "intern", spy)
    assert (str(Path("seen/here")), interned) == ("seen/here", ["here", "seen"]), "what interns can be seen"
    read(path, InputShape(channels=1, height=8, width=8))
    assert not {part for name in names for part in (name, *name.split("/"))} & set(interned)


def empty_members(names: Iterable[bytes]) -> Iterator[bytes]:
    """Headers of a tar's members without content, whose names have one length; `tarfile` takes fifty times as long."""
    header = bytearray(tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT))
    header[148:156] = b" " * 8  # as what the checksum itself counts
    others = sum(header)
    for name in names:
        header[: len(name)] = name
        header[148:156] = b"%06o\0 " % (others + sum(name))
        yield bytes(header)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_hundred_thousand_entries_are_refused(tmp_path: Path, kind: str) -> None:
    names = [b"c%d/%06d" % (number % 2, number) for number in range(100_000)]
    path = tmp_path / "upload"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name.decode(), b"")
    else:
        path.write_bytes(gzip.compress(b"".join(empty_members(names)) + bytes(1024), 1))
        with tarfile.open(path) as few:
            assert [few.next().name for _ in range(2)] == ["c0/000000", "c1/000001"]  # type: ignore[union-attr]
    started = time.thread_time()  # what others take of the machine does not count
    with pytest.raises(TooManyEntries):
        inspect(path)
    assert time.thread_time() - started < 20
