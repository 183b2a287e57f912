"""Tests of archives of every kind: layouts, unsafe names, bombs, damage, unreadable images."""

import io
import stat
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from engram.config.definition import InputShape
from engram.data.archives import ReadArchive, inspect, read
from engram.data.containers import ArchiveLimits, walk
from engram.errors import (
    ArchiveError,
    ArchiveLink,
    ArchiveTooLarge,
    BadLayout,
    Cancelled,
    EngramError,
    NotAnArchive,
    SuspiciousRatio,
    TooFewClasses,
    TooFewImages,
    TooManyUnreadable,
    UnsafePath,
)

SHAPE = InputShape(channels=1, height=8, width=8)
KINDS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8), value).save(out, "PNG")
    return out.getvalue()


PAIR = {"cat/1.png": png(10), "cat/2.png": png(20), "dog/1.png": png(30), "dog/2.png": png(40)}


def pack(path: Path, files: dict[str, bytes], kind: str = "zip") -> Path:
    """Write an archive; a name that ends with `/` is a folder."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, f"w:{kind[4:]}") as tar:  # type: ignore[call-overload]  # the mode is computed
        for name, data in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.size = len(data)
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "upload"  # no ending: the kind is known by the content


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_recognised_and_read(here: Path, kind: str) -> None:
    pack(here, PAIR, kind)
    summary = inspect(here)
    assert (summary.kind, summary.images, summary.held_out, summary.classes) == (kind, 4, 0, ("cat", "dog"))
    found = read(here, SHAPE)
    assert found.unreadable == ()
    assert found.examples.classes == ("cat", "dog")
    assert found.examples.labels.tolist() == [0, 0, 1, 1]
    assert found.examples.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40]
    assert found.examples.held_out is None


@pytest.mark.parametrize("top", ["", "dataset/", "./dataset/"])
def test_train_and_val_below_an_optional_common_folder(here: Path, top: str) -> None:
    files = {f"{top}train/{name}": data for name, data in PAIR.items()}
    files |= {f"{top}val/{name}": data for name, data in PAIR.items() if "1" in name}
    files |= {f"{top}README.txt": b"about", f"{top}docs/": b"", f"{top}docs/licence.md": b"free"}
    examples = read(pack(here, files), SHAPE).examples
    assert examples.counts() == (2, 2)
    assert examples.held_out is not None
    assert examples.held_out.images[:, 0, 0, 0].tolist() == [10, 30]


def test_the_order_in_the_archive_does_not_matter(here: Path, tmp_path: Path) -> None:
    forwards = read(pack(here, PAIR), SHAPE).examples
    backwards = read(pack(tmp_path / "other", dict(reversed(PAIR.items())), "tar.gz"), SHAPE).examples
    assert torch.equal(forwards.images, backwards.images)
    assert torch.equal(forwards.labels, backwards.labels)


def test_what_file_managers_leave_behind_is_ignored(here: Path) -> None:
    junk = {"__MACOSX/cat/._1.png": b"x", "cat/.DS_Store": b"x", "cat/Thumbs.db": b"x", ".git/config": b"x"}
    assert inspect(pack(here, PAIR | junk)).images == 4


def test_images_without_an_ending_are_known_by_their_content(here: Path) -> None:
    assert read(pack(here, {name[:-4]: data for name, data in PAIR.items()}), SHAPE).examples.counts() == (2, 2)


UNSAFE = [
    "../x",
    "cat/../../x.png",
    "/etc/passwd",
    "C:/x.png",
    "c:x.png",
    "..\\x",
    "\\\\server\\x",
    "a\\..\\..\\x",
    "a\nb/1.png",
]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("name", UNSAFE)
def test_a_name_that_leads_elsewhere_is_refused(here: Path, kind: str, name: str) -> None:
    pack(here, PAIR | {name: png(1)}, kind)
    for ask in (inspect, reads):
        with pytest.raises(UnsafePath):
            ask(here)


def reads(path: Path) -> ReadArchive:
    return read(path, SHAPE)


def test_a_name_with_a_zero_byte_is_refused(here: Path) -> None:
    pack(here, PAIR | {"dog/x.pngQ../../y": png(1)})
    here.write_bytes(here.read_bytes().replace(b"pngQ", b"png\0"))
    with pytest.raises(UnsafePath):
        inspect(here)


@given(name=st.text(st.sampled_from("ab./\\:\0\n~C"), min_size=1, max_size=12), kind=st.sampled_from(["zip", "tar"]))
@settings(max_examples=200, deadline=None, suppress_health_check=SUPPRESSED)
def test_no_name_ever_leads_out_of_the_archive(tmp_path: Path, name: str, kind: str) -> None:
    assume(not name.startswith("\0"))  # Python's own zip writer cannot write it
    path = pack(tmp_path / "upload", {name: b"data"}, kind)
    try:
        entries = [entry for entry, _ in walk(path, ArchiveLimits())]
    except ArchiveError:
        return
    for entry in entries:
        inside = (tmp_path / Path(*entry.path)).resolve()
        assert inside.is_relative_to(tmp_path.resolve())
        assert inside != tmp_path.resolve()
        assert not {"..", ".", ""} & set(entry.path)


NAMES = st.text("abcdäöü日本 _-1", min_size=1, max_size=8).map(str.strip).filter(bool)


@given(
    files=st.dictionaries(NAMES, st.lists(st.integers(0, 255), min_size=2, max_size=4), min_size=2, max_size=4),
    kind=st.sampled_from(KINDS),
)
@settings(max_examples=50, deadline=None, suppress_health_check=SUPPRESSED)
def test_what_is_packed_is_what_is_read(tmp_path: Path, files: dict[str, list[int]], kind: str) -> None:
    packed = {f"{name}/{i}.png": png(value) for name, values in files.items() for i, value in enumerate(values)}
    examples = read(pack(tmp_path / "upload", packed, kind), SHAPE).examples
    assert examples.classes == tuple(sorted(files))
    for label, name in enumerate(examples.classes):
        assert examples.images[examples.labels == label][:, 0, 0, 0].tolist() == files[name]


def link_in_zip(path: Path) -> None:
    with zipfile.ZipFile(pack(path, PAIR), "a") as archive:
        info = zipfile.ZipInfo("cat/3.png")
        info.create_system = 3
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")


def special_in_tar(kind: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w:xz") as archive:
            member = tarfile.TarInfo("cat/3.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)

    return write


SPECIAL = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]


@pytest.mark.parametrize("write", [link_in_zip, *map(special_in_tar, SPECIAL)])
def test_links_and_devices_are_refused(here: Path, write: Callable[[Path], None]) -> None:
    write(here)
    with pytest.raises(ArchiveLink):
        inspect(here)


def test_encrypted_and_repeated_entries_are_refused(here: Path) -> None:
    pack(here, PAIR)
    data = bytearray(here.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    here.write_bytes(data)
    with pytest.raises(ArchiveError, match="encrypted"):
        inspect(here)
    pack(here, PAIR | {"./cat//1.png": png(1)})
    with pytest.raises(ArchiveError, match="twice"):
        inspect(here)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused_in_bounded_time_and_memory(here: Path, kind: str) -> None:
    pack(here, PAIR | {"cat/3.png": bytes(60_000_000)}, kind)
    tracemalloc.start()
    started = time.thread_time()
    try:
        with pytest.raises(SuspiciousRatio):
            inspect(here)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert time.thread_time() - started < 20


def test_a_bomb_behind_honest_bytes_is_refused_too(here: Path) -> None:
    noise = torch.randint(0, 256, (2_000_000,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    honest = bytes(noise.numpy())
    for kind in ("zip", "tar.gz"):
        pack(here, PAIR | {"cat/3.png": honest, "cat/4.png": bytes(20_000_000)}, kind)
        with pytest.raises(SuspiciousRatio, match=r"4\.png"):
            inspect(here)


def test_overlapping_entries_are_judged_by_the_file(here: Path) -> None:
    kernel = bytes(50_000)
    pack(here, {f"{'cat' if i % 2 else 'dog'}/{i:04}.png": kernel for i in range(1000)}, "zip")
    data = here.read_bytes()
    start = data.index(b"PK\x01\x02")
    directory = bytearray(data[start:])
    end = directory.index(b"PK\x05\x06")
    at = 0
    while at < end:
        directory[at + 42 : at + 46] = bytes(4)
        at += 46 + len("cat/0000.png")
    first = data.index(b"PK\x03\x04", 4)
    directory[end + 16 : end + 20] = first.to_bytes(4, "little")
    here.write_bytes(data[:first] + bytes(directory))
    with pytest.raises(SuspiciousRatio, match="the archive"):
        reads(here)


def test_size_limits(here: Path) -> None:
    pack(here, PAIR, "tar")
    with pytest.raises(ArchiveTooLarge):
        inspect(here, ArchiveLimits(max_entry_bytes=20))
    with pytest.raises(ArchiveTooLarge):
        inspect(here, ArchiveLimits(max_total_bytes=len(PAIR["cat/1.png"]) * 3))
    with pytest.raises(ArchiveTooLarge):
        read(here, SHAPE, ArchiveLimits(max_decoded_bytes=255))


def test_a_header_that_pretends_to_be_huge_is_refused(here: Path) -> None:
    with tarfile.open(here, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("cat/1.png")
        member.pax_headers = {"comment": "x" * 3_000_000}
        archive.addfile(member)
    with pytest.raises(ArchiveError):
        inspect(here)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_archive_is_an_archive_error(here: Path, kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = {
        name: data + bytes(torch.randint(0, 256, (3000,), generator=generator, dtype=torch.uint8).numpy())
        for name, data in PAIR.items()
    }
    data = pack(here, noise, kind).read_bytes()
    for part in (0.3, 0.6, 0.8):
        here.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(NotAnArchive):
            inspect(here)


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=SUPPRESSED)
def test_tampering_raises_nothing_but_our_own_errors(tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    bytes_ = bytearray(pack(tmp_path / "upload", PAIR, kind).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(bytes_) - 1), min_size=1, max_size=6)):
        bytes_[place] = data.draw(st.integers(0, 255))
    (tmp_path / "upload").write_bytes(bytes_)
    try:
        found = reads(tmp_path / "upload")
    except EngramError:
        return
    assert len(found.examples) >= 4 - len(found.unreadable)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(600), bytes(1024)])
def test_something_else_is_no_archive(here: Path, data: bytes) -> None:
    here.write_bytes(data)
    with pytest.raises(NotAnArchive):
        inspect(here)


@pytest.mark.parametrize(
    ("files", "error"),
    [
        ({"1.png": b"", "2.png": b""}, BadLayout),
        ({"a/b/c/1.png": b"", "a/b/d/2.png": b""}, BadLayout),
        (PAIR | {"cat/young/1.png": b""}, BadLayout),
        ({f"{part}/{name}": b"" for part in ("train", "extra") for name in PAIR}, BadLayout),
        ({f"val/{name}": b"" for name in PAIR}, BadLayout),
        ({f"train/{name}": b"" for name in PAIR} | {"val/cow/1.png": b""}, BadLayout),
        ({"x" * 300 + "/1.png": b"", "cat/1.png": b""}, BadLayout),
        ({"README.txt": b""}, BadLayout),
        ({}, (BadLayout, NotAnArchive)),
        ({f"train/{name}": b"" for name in PAIR} | {"val/cat/1.png": b""}, TooFewImages),
        ({"cat/1.png": b"", "cat/2.png": b""}, TooFewClasses),
        (PAIR | {"cow/1.png": b""}, TooFewImages),
        (PAIR | {"cow/": b""}, TooFewImages),
    ],
)
def test_the_layout_is_settled_by_names_alone(here: Path, files: dict[str, bytes], error: type[EngramError]) -> None:
    for kind in ("zip", "tar.gz"):
        with pytest.raises(error):
            inspect(pack(here, files, kind))


def test_a_few_unreadable_images_are_left_out_and_listed(here: Path) -> None:
    many = {f"{name}/{i:02}.png": png(i) for name in ("cat", "dog") for i in range(30)}
    broken = {"cat/03.png": b"", "dog/07.png": many["dog/07.png"][:40], "dog/notes.txt": b"text"}
    found = read(pack(here, many | broken), SHAPE, max_unreadable=0.05)
    assert [(one.name, one.code) for one in found.unreadable] == [
        ("cat/03.png", "empty_image"),
        ("dog/07.png", "truncated_image"),
    ]
    assert [(one.folder, one.reason, one.format, one.names) for one in found.left_out.folders] == [
        ("dog", "not_an_image", "text", ("notes.txt",))
    ]
    assert found.examples.counts() == (29, 29)
    assert found.examples.images[:, 0, 0, 0].tolist() == [i for i in range(30) if i != 3] + [
        i for i in range(30) if i != 7
    ]
    with pytest.raises(TooManyUnreadable, match="cat/03"):
        read(here, SHAPE, max_unreadable=0.03)


def test_a_damaged_entry_of_a_zip_costs_only_itself(here: Path) -> None:
    many = {f"{name}/{i:02}.png": png(i) for name in ("cat", "dog") for i in range(30)}
    data = bytearray(pack(here, many).read_bytes())
    at = data.index(b"cat/05.png") + len("cat/05.png") + 12
    data[at : at + 4] = b"oops"
    here.write_bytes(data)
    assert [one.name for one in reads(here).unreadable] == ["cat/05.png"]


def test_a_class_left_with_one_readable_image_is_refused(here: Path) -> None:
    with pytest.raises(TooFewImages):
        read(pack(here, PAIR | {"dog/2.png": b""}), SHAPE, max_unreadable=0.5)


def test_progress_is_reported_and_cancel_is_heard(here: Path) -> None:
    many = {f"{name}/{i:03}.png": png(1) for name in ("cat", "dog") for i in range(100)}
    reported: list[float] = []
    read(pack(here, many), SHAPE, progress=reported.append)
    assert reported == sorted(reported)
    assert len(reported) == 100
    assert reported[-1] == 1.0
    asked: list[bool] = []

    def cancel() -> bool:
        asked.append(True)
        return len(asked) > 10

    with pytest.raises(Cancelled):
        read(here, SHAPE, cancel=cancel)
    assert len(asked) == 11


def test_nothing_is_written_beside_the_archive(tmp_path: Path) -> None:
    reads(pack(tmp_path / "upload", PAIR, "tar.xz"))
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]
