"""Tests of what counts as an image or a class in an archive, and of what is left out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from engram.data.archives import inspect, probe, read
from engram.data.archiving.left_out import LONGEST_NAME, MOST_FOLDERS, MOST_NAMES
from engram.data.containers import ArchiveLimits
from engram.errors import BadLayout, EngramError, TooFewImages, TooManyUnreadable
from tests.engram.data.test_archives import PAIR, SHAPE, pack, png

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(200)


def written(value: int, kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("L", (8, 8), value).save(out, kind)
    return out.getvalue()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "upload"


BIRDS: dict[str, tuple[str, ...]] = {
    "no suffix": ("1", "2"),
    "a suffix that few know": ("1.jpe", "2.jpe"),
    "wget's second copy": ("1.jpg.1", "1.jpg.2"),
    "the end of an address": ("1.png?raw=1", "2.png?raw=1"),
    "Twitter's": ("1.jpg_large", "2.jpg_large"),
    "animated": ("1.apng", "2.apng"),
    "capitals": ("1.PNG", "2.JPEG"),
    "two suffixes": ("1.tar.png", "2.png.bak"),
    "a suffix of something else": ("1.txt", "2.dat"),
}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("names", BIRDS.values(), ids=BIRDS)
def test_a_class_is_known_by_its_files_contents(here: Path, names: tuple[str, ...], kind: str) -> None:
    birds = {
        f"bird/{name}": written(50 + 10 * at, form)
        for at, (name, form) in enumerate(zip(names, ("PNG", "JPEG"), strict=True))
    }
    found = read(pack(here, PAIR | birds, kind), SHAPE)
    assert found.examples.classes == ("bird", "cat", "dog")
    assert found.examples.counts() == (2, 2, 2)
    assert found.examples.images[:2, 0, 0, 0].tolist() == [50, 60]
    assert (found.unreadable, found.left_out.count) == ((), 0)


def test_a_folder_that_begins_with_a_dot_is_a_class_if_it_holds_images(here: Path) -> None:
    files = PAIR | {f".22LR/{i}.png": png(i) for i in (1, 2)} | {".notes/plan.txt": b"what to do"}
    for kind in ("zip", "tar.gz"):
        found = read(pack(here, files, kind), SHAPE)
        assert found.examples.classes == (".22LR", "cat", "dog")
        assert [warning for warning in found.warnings if ".22LR" in warning]
        assert [(one.folder, one.reason, one.count) for one in found.left_out.folders] == [(".notes", "hidden", 1)]


def test_folders_that_all_begin_with_a_dot_are_classes_too(here: Path) -> None:
    assert inspect(pack(here, {f".{name}": data for name, data in PAIR.items()})).classes == (".cat", ".dog")
    with pytest.raises(TooFewImages, match="bird"):
        inspect(pack(here, {f".top/{name}": data for name, data in PAIR.items()} | {".top/bird/": b""}))


@pytest.mark.parametrize("top", ["", "ds/", "train/", "ds/train/"])
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"bird/": b""}, "class 'bird' has 0 images"),
        ({"bird/.gitkeep": b""}, "class 'bird' has 0 images"),
        ({"bird/Icon\r": b"", "bird/Thumbs.db": b"x", "bird/.ipynb_checkpoints/1.png": png(1)}, "class 'bird' has 0"),
        ({"bird/notes.txt": b"none yet"}, "1 other file there: 1 text"),
        ({f"bird/{i}.heic": HEIC for i in range(8)}, "8 other files there: 8 HEIC"),
        ({f"bird/{i}": HEIC for i in range(8)}, "8 other files there: 8 HEIC"),
        ({f"bird/{i}.mp4": MP4 for i in range(2)}, "2 MP4 video"),
        ({f"bird/.{i}.png": png(i) for i in range(4)}, "4 hidden"),
        ({f"bird/{i}": b"" for i in range(3)}, "3 empty"),
        ({"bird/raw/1.nef.xmp": b"<x/>"}, "1 text"),
        ({"bird/1.png": png(1), "bird/2": b"\xfe\xed" * 20}, "has 1 image; it needs two .1 other file there: 1 of an"),
    ],
)
def test_a_class_of_nothing_that_can_be_read_is_refused(
    here: Path, top: str, files: dict[str, bytes], said: str
) -> None:
    for kind in ("zip", "tar"):
        path = pack(here, {f"{top}{name}": data for name, data in (PAIR | files).items()}, kind)
        with pytest.raises(TooFewImages, match=said):
            inspect(path)
        with pytest.raises(TooFewImages, match=said):
            read(path, SHAPE, max_unreadable=0.9)


def test_what_is_left_out_is_counted_by_folder(here: Path) -> None:
    files = {
        "labels.csv": b"file,label\n",
        "cat/1.txt": b"sleeps",
        "cat/2.txt": b"runs",
        "cat/clip.mov": MP4,
        "cat/.1.png.swp": b"x",
        "cat/masks/1.json": b"{}",
        "more.zip": b"PK\x03\x04 and so on",
        ".DS_Store": b"x",
        "__MACOSX/cat/._1.png": b"x",
    }
    for kind in ("zip", "tar.xz"):
        path = pack(here, PAIR | files, kind)
        found = read(path, SHAPE)
        assert found.left_out == inspect(path).left_out
        assert found.left_out.count == 7
        assert [(one.folder, one.reason, one.format, one.count, one.names) for one in found.left_out.folders] == [
            ("", "outside", "text", 1, ("labels.csv",)),
            ("", "outside", "zip archive", 1, ("more.zip",)),
            ("cat", "hidden", None, 1, (".1.png.swp",)),
            ("cat", "not_an_image", "MP4 video", 1, ("clip.mov",)),
            ("cat", "not_an_image", "text", 2, ("1.txt", "2.txt")),
            ("cat/masks", "outside", "text", 1, ("1.json",)),
        ]
        assert found.examples.counts() == (2, 2)


def test_the_summary_stays_small_and_its_totals_right(here: Path) -> None:
    many = {f"docs/{folder:03}/{'n' * 300}{i}.txt": b"text" for folder in range(60) for i in range(8)}
    files = {f"train/{name}": data for name, data in PAIR.items()} | many
    left_out = inspect(pack(here, files)).left_out
    assert (left_out.count, len(left_out.folders)) == (480, MOST_FOLDERS)
    assert {(one.count, len(one.names), len(one.names[0])) for one in left_out.folders} == {
        (8, MOST_NAMES, LONGEST_NAME + 3)
    }
    assert left_out.unlisted == 80


def test_images_in_formats_that_are_not_read_count_as_unreadable(here: Path) -> None:
    many = {f"{name}/{i:02}.png": png(i) for name in ("cat", "dog") for i in range(30)}
    found = read(pack(here, many | {"dog/x.heic": HEIC}), SHAPE)
    assert [(one.name, one.code) for one in found.unreadable] == [("dog/x.heic", "not_an_image")]
    with pytest.raises(TooManyUnreadable, match=r"dog/0\.heic"):
        read(pack(here, many | {f"dog/{i}.heic": HEIC for i in range(9)}), SHAPE)


def test_what_is_called_an_image_stays_an_unreadable_one(here: Path) -> None:
    many = {f"{name}/{i:02}.png": png(i) for name in ("cat", "dog") for i in range(30)}
    found = read(pack(here, many | {"dog/letter.PNG": b"Dear editor"}), SHAPE)
    assert [(one.name, one.code) for one in found.unreadable] == [("dog/letter.PNG", "not_an_image")]
    assert found.left_out.count == 0


@pytest.mark.parametrize(
    ("files", "culprit"),
    [
        ({"ds/preview.jpg": png(1)}, "ds/preview.jpg"),
        ({"ds/preview": png(1)}, "ds/preview"),
        ({"preview.png": png(1)}, "preview.png"),
        ({"ds/cat/young/1.png": png(1)}, "ds/cat/young/1.png"),
        ({"ds/cat/young/1": png(1), "ds/cat/young/2": png(2)}, r"ds/cat/young/1' \(and 1 more\)"),
        ({"other/cat/1.png": png(1)}, "other/cat/1.png"),
        ({"Icon.png": png(1)}, "Icon.png"),
    ],
)
def test_a_refusal_names_the_image_that_is_out_of_place(here: Path, files: dict[str, bytes], culprit: str) -> None:
    placed = {f"ds/{name}": data for name, data in PAIR.items()}
    for order in (placed | files, files | placed):
        with pytest.raises(BadLayout, match=f"^'{culprit}.* is not ds/<class>/<image>, as the other 4 are$"):
            inspect(pack(here, order))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train/x.png": png(1)}, "'train/x.png' is not train/<class>/<image> or val/..."),
        ({"extra/cat/1.png": png(1)}, r"beside train/, val/ and test/ there is 'extra'/"),
        ({"valid/cat/1.png": png(1)}, "there are val/ and valid/: one of them"),
        ({"val/x.png": png(1)}, "'val/x.png' is not"),
    ],
)
def test_a_refusal_names_it_below_train_and_val(here: Path, files: dict[str, bytes], said: str) -> None:
    placed = {f"{part}/{name}": data for part in ("train", "val") for name, data in PAIR.items()}
    with pytest.raises(BadLayout, match=said):
        inspect(pack(here, placed | files))


def test_archives_in_an_archive_are_refused_by_what_they_are(here: Path, tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner", PAIR).read_bytes()
    with pytest.raises(BadLayout, match=r"no images but archives, such as 'cat\.zip'"):
        inspect(pack(here, {"cat.zip": inner, "dog.zip": inner}))
    with pytest.raises(TooFewImages, match="1 zip archive"):
        inspect(pack(here, PAIR | {"bird/all.zip": inner}))


def test_an_archive_of_nothing_that_is_an_image_is_refused_at_once(here: Path) -> None:
    refused: list[tuple[dict[str, bytes], type[EngramError]]] = [
        ({f"{name}/{i}.heic": HEIC for name in ("cat", "dog") for i in range(4)}, TooFewImages),
        ({f"{name}/{i}.txt": b"text" for name in ("cat", "dog") for i in range(4)}, BadLayout),
        ({".git/x.png": png(1), "__MACOSX/cat/1.png": png(1)}, BadLayout),
    ]
    for files, error in refused:
        with pytest.raises(error):
            inspect(pack(here, files))


@pytest.mark.parametrize("kind", ["zip", "tar.bz2"])
def test_only_files_whose_suffix_says_nothing_are_looked_into(here: Path, kind: str) -> None:
    many = {f"{name}/{i:02}.png": png(i) for name in ("cat", "dog") for i in range(30)}
    path = pack(here, many | {"cat/x.png": b"no image", "cat/y": png(7)}, kind)
    probe(path, SHAPE)
    assert (inspect(path).images, inspect(path, ArchiveLimits(max_entries=1000)).left_out.count) == (62, 0)


def test_images_of_a_single_colour_are_counted_and_warned_of(here: Path) -> None:
    def striped(value: int) -> bytes:
        out = io.BytesIO()
        image = Image.new("L", (8, 8), value)
        image.putpixel((3, 3), 255)
        image.save(out, "PNG")
        return out.getvalue()

    good = {f"{name}/{i:02}.png": striped(i) for name in ("cat", "dog", "owl") for i in range(20)}
    blank = {f"cat/blank{i}.png": png(i) for i in range(3)} | {"dog/blank.png": png(1)}
    for top in ("", "train/"):
        held_out = {f"val/{name}/1.png": striped(1) for name in ("cat", "dog", "owl")} if top else {}
        found = read(pack(here, {f"{top}{name}": data for name, data in (good | blank).items()} | held_out), SHAPE)
        assert found.constant == (("cat", 3), ("dog", 1))
        (warning,) = found.warnings
        assert warning.startswith(f"3 of {24 if top else 23} images of class 'cat' are of a single colour each")


def test_an_image_of_one_pixel_is_not_called_constant(here: Path) -> None:
    found = read(pack(here, PAIR), SHAPE.model_copy(update={"height": 1, "width": 1}))
    assert (found.constant, found.warnings) == ((), ())
    assert read(here, SHAPE).constant == (("cat", 2), ("dog", 2))


@pytest.mark.parametrize("top", ["", "ds/"])
@pytest.mark.parametrize("held_out", ["val", "valid", "validation"])
def test_the_held_out_part_has_several_names_and_test_is_never_learned_from(
    here: Path, top: str, held_out: str
) -> None:
    files = {f"{top}{part}/{name}": data for part in ("train", held_out, "test") for name, data in PAIR.items()}
    files |= {f"{top}test/stranger/1.png": png(7), f"{top}test/bare.png": png(8), f"{top}test/deep/er/1.png": png(9)}
    found = read(pack(here, files), SHAPE)
    assert found.examples.classes == ("cat", "dog")
    assert found.examples.held_out is not None
    assert (found.examples.counts(), found.examples.held_out.counts()) == ((2, 2), (2, 2))
    assert (found.left_out.count, {one.reason for one in found.left_out.folders}) == (7, {"test"})
    assert found.warnings[0] == "7 images under test/ were not learned from: they are there to evaluate on"


def test_without_train_a_folder_may_be_called_as_a_part(here: Path) -> None:
    assert inspect(pack(here, {f"test/{name}": data for name, data in PAIR.items()})).images == 4
    more = {"test/1.png": png(1), "test/2.png": png(2), "valid/1.png": png(1), "valid/2.png": png(2)}
    assert inspect(pack(here, PAIR | more)).classes == ("cat", "dog", "test", "valid")
