"""Tests of blank images and bombs: what packs well and may, and what does not."""

from __future__ import annotations

import bz2
import io
import random
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from engram.data.archives import inspect, read
from engram.data.containers import ArchiveLimits, walk
from engram.errors import ArchiveError, SuspiciousRatio, TruncatedImage
from tests.engram.data.test_archives import KINDS, PAIR, SHAPE, pack, png

PACKED = [kind for kind in KINDS if kind != "tar"]


def image(kind: str, size: tuple[int, int], mode: str = "L", noise: random.Random | None = None) -> bytes:
    out = io.BytesIO()
    picture = Image.new(mode, size, "white")
    if noise is not None:
        picture = Image.frombytes(mode, size, noise.randbytes(size[0] * size[1] * len(picture.getbands())))
    picture.save(out, kind)
    return out.getvalue()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "upload"


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(
    "blank",
    [("BMP", (640, 480), "L"), ("TIFF", (1240, 1754), "L"), ("TIFF", (2480, 3508), "RGB"), ("BMP", (640, 480), "RGB")],
    ids=["black frame", "page", "large page", "colour frame"],
)
def test_one_blank_image_among_others_is_read(here: Path, kind: str, blank: tuple[str, tuple[int, int], str]) -> None:
    noise = random.Random(0)
    files = {f"{name}/{i}.bmp": image("BMP", (64, 48), noise=noise) for name in ("full", "empty") for i in range(10)}
    convert = SHAPE.model_copy(update={"convert": True})
    found = read(pack(here, files | {"empty/blank": image(*blank)}, kind), convert)
    assert found.examples.counts() == (11, 10)
    assert found.constant == (("empty", 1),)


@pytest.mark.parametrize("kind", PACKED)
def test_a_class_of_blank_frames_is_read(here: Path, kind: str) -> None:
    noise, blank = random.Random(0), image("BMP", (640, 480))
    files = {f"full/{i}.bmp": image("BMP", (64, 48), noise=noise) for i in range(10)}
    found = read(pack(here, files | {f"empty/{i:03}.bmp": blank for i in range(100)}, kind), SHAPE)
    assert found.examples.counts() == (100, 10)
    assert found.constant == (("empty", 100),)


@pytest.mark.parametrize("kind", PACKED)
def test_a_file_of_zeros_is_one_unreadable_image(here: Path, kind: str) -> None:
    many = {f"{name}/{i:02}.png": png(i) for name in ("cat", "dog") for i in range(30)}
    found = read(pack(here, many | {"dog/lost.jpg": bytes(4_000_000)}, kind), SHAPE)
    assert [(one.name, one.code) for one in found.unreadable] == [("dog/lost.jpg", "not_an_image")]


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize(("count", "size"), [(1, 60_000_000), (20, 2_000_000), (200, 200_000)])
@pytest.mark.parametrize("suffix", [".png", ""])
def test_bombs_are_refused_however_they_are_cut(here: Path, kind: str, count: int, size: int, suffix: str) -> None:
    path = pack(here, PAIR | {f"cat/bomb{i}{suffix}": bytes(size) for i in range(count)}, kind)
    with pytest.raises(SuspiciousRatio, match="ENGRAM_MAX_ARCHIVE_RATIO"):
        inspect(path)


@pytest.mark.parametrize("kind", PACKED)
def test_what_begins_as_an_image_is_bounded_too(here: Path, kind: str) -> None:
    blank = image("BMP", (1000, 1000))
    path = pack(here, PAIR | {f"cat/{i:03}.bmp": blank for i in range(60)}, kind)
    assert inspect(path, ArchiveLimits(images_from_bytes=50 * 2**20)).images == 64
    with pytest.raises(SuspiciousRatio):
        inspect(path, ArchiveLimits(images_from_bytes=10 * 2**20))
    generous = ArchiveLimits(images_from_bytes=0, max_ratio=100_000)
    assert inspect(path, generous).images == 64


def lying(path: Path, method: int, stated: int) -> Path:
    """A zip whose last entry unpacks to more than its directory states."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in PAIR.items():
            archive.writestr(name, data)
        archive.writestr("cat/3", bytes(40_000_000))
    forged = bytearray(path.read_bytes())
    for mark, place in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = forged.rindex(mark) + place
        forged[at : at + 4] = stated.to_bytes(4, "little")
    path.write_bytes(forged)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_no_more_is_unpacked_than_the_directory_states(here: Path, method: int) -> None:
    path = lying(here, method, 1000)
    tracemalloc.start()
    try:
        found = read(path, SHAPE, max_unreadable=0.5)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()
    assert [one.code for one in found.unreadable] == ["truncated_image"]


def test_bzip2_in_a_zip_is_checked_like_the_rest(here: Path) -> None:
    with zipfile.ZipFile(here, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in PAIR.items():
            archive.writestr(name, data)
    contents = {"/".join(entry.path): content() for entry, content in walk(here, ArchiveLimits())}
    assert contents == PAIR
    assert read(here, SHAPE).examples.counts() == (2, 2)
    forged = bytearray(here.read_bytes())
    forged[forged.index(b"PK\1\2") + 16] ^= 1  # the checksum in the directory
    here.write_bytes(forged)
    entries = walk(here, ArchiveLimits())
    entry, content = next(entries)
    assert (entry.path, content(4)) == (("cat", "1.png"), PAIR["cat/1.png"][:4])
    with pytest.raises(TruncatedImage):
        content()


@pytest.mark.parametrize("kind", KINDS)
def test_the_beginning_of_an_entry_can_be_read_before_all_of_it(here: Path, kind: str) -> None:
    files = PAIR | {"cat/3.png": random.Random(0).randbytes(3000), "dog/3": b"", "dog/4": b"x"}
    found: dict[str, bytes] = {}
    for entry, content in walk(pack(here, files, kind), ArchiveLimits()):
        data = files["/".join(entry.path)]
        assert [content(most) for most in (10, 4, 512, 300)] == [data[:10], data[:4], data[:512], data[:300]]
        found["/".join(entry.path)] = content()
    assert found == files


def test_a_bomb_of_headers_is_refused(here: Path) -> None:
    """Headers of a tar are no files: what is granted to images is not granted to them."""
    block = bytearray(512)
    block[:4], block[100:108], block[124:136], block[156:157] = b"long", b"0000644\0", b"%011o\0" % 1_000_000, b"L"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    header = bytes(block) + bytes(1_000_000 + 448)
    here.write_bytes(bz2.compress(header * 200))
    with pytest.raises(ArchiveError):
        inspect(here)
