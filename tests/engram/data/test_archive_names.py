"""Tests of names in archives: encodings, junk, and class names that are taken for others."""

from __future__ import annotations

import io
import struct
import tarfile
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from engram.data.archives import inspect, read
from engram.data.archiving.names import check_name, is_junk, look
from engram.errors import ArchiveError, BadLayout, BadName, UnsafePath
from tests.engram.data.test_archives import PAIR, SHAPE, pack, png

UTF8 = 0x800
UNICODE_PATH = 0x7075


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "upload"


def no_extra(_: bytes) -> bytes:
    return b""


def raw_zip(
    path: Path,
    entries: list[tuple[bytes, bytes]],
    flags: int = 0,
    host: int = 3,
    extra: Callable[[bytes], bytes] = no_extra,
) -> Path:
    """Write a zip with names as bytes, which Python's own writer does not."""
    out = directory = b""
    for name, data in entries:
        field = extra(name)
        sizes = struct.pack("<IIIHH", zlib.crc32(data), len(data), len(data), len(name), len(field))
        head = struct.pack("<HHHHH", 20, flags, 0, 0, 0x5821)
        place = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, len(out))
        directory += b"PK\1\2" + struct.pack("<H", host << 8 | 20) + head + sizes + place + name + field
        out += b"PK\3\4" + head + sizes + name + field + data
    end = struct.pack("<HHHHIIH", 0, 0, len(entries), len(entries), len(directory), len(out), 0)
    path.write_bytes(out + directory + b"PK\5\6" + end)
    return path


def raw_tar(path: Path, entries: list[tuple[bytes, bytes]]) -> Path:
    """Write a tar with names as bytes."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in entries:
            member = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def images(*names: bytes) -> list[tuple[bytes, bytes]]:
    return [(name + b"/%d.png" % i, png(10 * at + i)) for at, name in enumerate(names) for i in range(2)]


def field_of(right: dict[bytes, bytes], version: int = 1, wrong: int = 0) -> Callable[[bytes], bytes]:
    """The Unicode Path field that says what the entries' folders are rightly called."""

    def field(name: bytes) -> bytes:
        folder, _, file = name.partition(b"/")
        content = struct.pack("<BI", version, zlib.crc32(name) ^ wrong) + right[folder] + b"/" + file
        other = struct.pack("<HHB", 0x5455, 1, 0)
        return other + struct.pack("<HH", UNICODE_PATH, len(content)) + content

    return field


@pytest.mark.parametrize("flags", [0, UTF8])
@pytest.mark.parametrize("names", [("café", "naïve"), ("猫", "犬"), ("кот", "пёс"), ("😀", "cat")])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_utf8_is_known_whether_it_is_flagged_or_not(here: Path, flags: int, names: tuple[str, str], form: str) -> None:
    coded = [unicodedata.normalize(form, name).encode() for name in names]  # type: ignore[arg-type]  # one of its forms
    found = read(raw_zip(here, images(*coded), flags), SHAPE).examples
    assert found.classes == tuple(sorted(names))
    assert found.counts() == (2, 2)


@pytest.mark.parametrize("host", [0, 3, 11])
def test_the_unicode_path_field_says_the_name(here: Path, host: int) -> None:
    right = {"čaj".encode("cp852"): "čaj".encode(), b"?ula": "žula".encode()}
    found = read(raw_zip(here, images(*right), host=host, extra=field_of(right)), SHAPE).examples
    assert found.classes == ("čaj", "žula")
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 10, 11]


def test_a_stale_or_unknown_field_is_not_believed(here: Path) -> None:
    right = {b"tea": b"coffee", b"rice": b"wheat"}
    for extra in (field_of(right, wrong=1), field_of(right, version=2), field_of({b"tea": b"\xff", b"rice": b"\xff"})):
        assert inspect(raw_zip(here, images(*right), extra=extra)).classes == ("rice", "tea")


def test_a_field_leads_out_of_the_archive_no_more_than_a_name(here: Path) -> None:
    right = {b"cat": b"../cat", b"dog": b"dog"}
    with pytest.raises(UnsafePath, match="leads out"):
        inspect(raw_zip(here, images(*right), extra=field_of(right)))


@pytest.mark.parametrize(
    ("encoding", "names"), [("cp852", "čaj"), ("cp437", "café"), ("shift-jis", "猫"), ("cp1251", "кот")]
)
@pytest.mark.parametrize("write", [raw_zip, raw_tar])
def test_a_name_of_unknown_encoding_is_refused_by_name(
    here: Path, write: Callable[[Path, list[tuple[bytes, bytes]]], Path], encoding: str, names: str
) -> None:
    path = write(here, images(b"tea", names.encode(encoding)))
    shown = "".join(chr(byte) if byte < 128 else f"\\x{byte:02x}" for byte in names.encode(encoding))
    for ask in (inspect, lambda path: read(path, SHAPE)):
        with pytest.raises(BadName, match="is not in UTF-8") as caught:
            ask(path)
        assert f"'{shown}/0.png'" in str(caught.value)
        assert caught.value.code == "archive_bad_name"


def test_a_name_that_is_falsely_flagged_is_refused_by_name(here: Path) -> None:
    with pytest.raises(BadName, match=r"'caf\\xe9/0\.png' is said to be in UTF-8 and is not"):
        inspect(raw_zip(here, images(b"tea", "café".encode("latin-1")), UTF8))


def test_composed_and_decomposed_folders_are_one_class(here: Path) -> None:
    both = [unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")]
    entries = [(f"{name}/{at}{i}.png".encode(), png(i)) for at, name in enumerate(both) for i in range(2)]
    for write in (raw_zip, raw_tar):
        summary = inspect(write(here, entries + images(b"tea")))
        assert (summary.classes, summary.images) == (("café", "tea"), 6)
        twice = [(f"{name}/1.png".encode(), png(1)) for name in both]
        with pytest.raises(ArchiveError, match="twice"):
            inspect(write(here, twice + images(b"tea")))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize(
    "junk",
    [
        "cat/Icon\r",
        "__MACOSX/cat/._Icon\r",
        "Icon\r",
        "cat/THUMBS.DB",
        "cat/ehthumbs.db",
        "cat/Desktop.ini",
        "cat/.DS_Store",
        "cat/._1.png",
        "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
        "lost+found/1.png",
        ".Spotlight-V100/x",
        ".Trashes/x",
        ".fseventsd/x",
        "$RECYCLE.BIN/S-1/1.png",
        "System Volume Information/x",
        "cat/.AppleDouble/1.png",
        "cat/.nfs0001",
        "cat/~$labels.xlsx",
        ".git/HEAD",
        "cat/.ipynb_checkpoints/1-checkpoint.png",
        "__MACOSX/bad\nname",
        ".git/\x01",
    ],
)
def test_what_systems_leave_behind_is_passed_over_before_it_is_judged(here: Path, junk: str, kind: str) -> None:
    found = read(pack(here, PAIR | {junk: png(3)}, kind), SHAPE)
    assert found.examples.classes == ("cat", "dog")
    assert found.examples.counts() == (2, 2)
    assert found.left_out.count == 0


def test_junk_does_not_lead_out_of_the_archive_either(here: Path) -> None:
    for name in ("__MACOSX/../../x", "/.DS_Store", "..\\Thumbs.db"):
        with pytest.raises(UnsafePath):
            inspect(pack(here, PAIR | {name: b""}))


def test_a_garbled_name_in_junk_is_passed_over(here: Path) -> None:
    entries = [*images(b"cat", b"dog"), (b"__MACOSX/caf\x82/._1.png", b"x")]
    for write in (raw_zip, raw_tar):
        assert inspect(write(here, entries)).classes == ("cat", "dog")


def test_words_that_only_resemble_junk_are_classes() -> None:
    assert not any(map(is_junk, ("Icon", "icons", "recycled", "thumbs", "git", "trash", "lost", "_MACOSX", "DS_Store")))


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["cat ", " cat", "cat\u200b", "cat\u00a0", "c\u00a0at", "cat\u202e", "ca\u2066t"])
def test_a_class_name_that_hides_something_is_refused(here: Path, name: str, kind: str) -> None:
    for top in ("", "train/", "ds/"):
        files = {f"{top}{name}/{i}.png": png(i) for i in range(2)} | {f"{top}dog/{i}.png": png(i) for i in range(2)}
        with pytest.raises(BadName, match=r"^the class name '.*(begins or ends with a blank|U\+.*not seen)"):
            inspect(pack(here, files, kind))
    with pytest.raises(BadName):
        inspect(pack(here, files | {f"ds/cat/{i}.png": png(i) for i in range(2)}, kind))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("CAFÉ", "café"),
        ("cat", "ｃａｔ"),
        ("x2", "x²"),
        ("ﬁsh", "fish"),
        ("می‌خواهم", "میخواهم"),
        ("❤️a", "❤a"),
    ],
)
def test_two_classes_that_are_taken_for_each_other_are_refused(here: Path, one: str, other: str) -> None:
    files = {f"{name}/{i}.png": png(i) for name in (one, other) for i in range(2)}
    with pytest.raises(BadName, match="are taken for each other"):
        inspect(pack(here, files))
    split = {"train": (one, "dog"), "val": (other, "dog")}
    files = {f"{part}/{name}/{i}.png": png(i) for part, names in split.items() for name in names for i in range(2)}
    with pytest.raises(BadLayout, match="which train/ has not"):
        inspect(pack(here, files))


@pytest.mark.parametrize(
    "names", [("A", "a"), ("cat", "cats"), ("a b", "ab"), ("ä", "a"), ("می‌خواهم", "👩‍🌾"), ("0", "O")]
)
def test_names_that_can_be_told_apart_are_taken(here: Path, names: tuple[str, str]) -> None:
    files = {f"{name}/{i}.png": png(i) for name in names for i in range(2)}
    assert inspect(pack(here, files)).classes == tuple(sorted(names))


def test_what_two_names_look_like() -> None:
    assert look("Straße") == look("STRASSE")
    assert look("a") != look("A")
    for name in ("a\u200cb", "\u200cب", "ب\u200d", "\u3164", "a\u2800", "a\x00b"):
        with pytest.raises(BadName):
            check_name("the name", name)
