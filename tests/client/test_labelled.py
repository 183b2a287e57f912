"""Tests of data sets as people have them: parts, tables, image folders with metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from engram_client import Dataset, InvalidDataset, read_dataset
from engram_client.bodies import evaluation_body, upload_body
from engram_client.labelled.parts import Purpose


def lay(folder: Path, *names: str) -> Path:
    """Files of these names, each with its name as its content."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def contents(found: Dataset) -> dict[str, str]:
    """What is in each member."""
    held = {}
    for one in found.members:
        if one.open is not None:
            with one.open() as file:
                held[one.name] = file.read().decode()
    return held


PARTED = ("train/cat/1.png", "train/dog/2.png", "Valid/cat/3.png", "test/cat/4.png", "test/dog/5.png", "README.md")


@pytest.mark.parametrize("top", ["", "archive/"])
def test_parts_are_learned_from_by_their_names_and_evaluated_on_by_test(tmp_path: Path, top: str) -> None:
    lay(tmp_path, *(f"{top}{name}" for name in PARTED))
    learned, asked = read_dataset(tmp_path), read_dataset(tmp_path, "evaluate")
    named = {"train/cat/1.png": "train/cat/1.png", "train/dog/2.png": "train/dog/2.png", "val/cat/3.png": PARTED[2]}
    assert contents(learned) == {name: top + content for name, content in named.items()}
    assert learned.notes == (
        "2 files of the part 'test' are kept to evaluate on, and were not sent",
        "1 files beside the parts were not sent",
    )
    assert contents(asked) == {"cat/4.png": f"{top}test/cat/4.png", "dog/5.png": f"{top}test/dog/5.png"}
    assert "2 files of the part 'train' and 1 files of the part 'val' are not evaluated on" in asked.notes[0]


@pytest.mark.parametrize("purpose", ["learn", "evaluate"])
def test_folders_of_classes_are_sent_as_they_are(tmp_path: Path, purpose: Purpose) -> None:
    names = ("test/1.png", "train/2.png", "valid/3.png")
    found = read_dataset(lay(tmp_path, *names), purpose)
    assert (tuple(contents(found)), found.notes) == (names, ())


def test_parts_that_are_there_twice_and_folders_that_are_none_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "val/cat/1.png", "validation/cat/1.png")
    with pytest.raises(InvalidDataset, match=r"are the same part.*\(bad_layout\)"):
        read_dataset(tmp_path)
    lay(tmp_path / "other", "train/cat/1.png", "more/cat/1.png")
    with pytest.raises(InvalidDataset, match="'more', which is no part"):
        read_dataset(tmp_path / "other")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", '\ufeffPath , Label\nimg/a.png,cat\n"img/b, c.png", "big, dog"\n\nmore/a.png,cat\nimg/a.png,cat\n'),
        ("t.csv", "id;label;file_name\r\n1;cat;img/a.png\r\n2;big, dog;img/b, c.png\r\n3;cat;more\\a.png\r\n"),
        ("t.csv", 'img/a.png,cat\n"img/b, c.png","big, dog"\nmore/a.png,cat\n'),
        ("t.tsv", "filename\tclass\nimg/a.png\tcat\nimg/b, c.png\tbig, dog\nmore/a.png\tcat\n"),
    ],
)
def test_a_table_names_files_and_labels(tmp_path: Path, name: str, text: str) -> None:
    lay(tmp_path, "img/a.png", "img/b, c.png", "more/a.png")
    (tmp_path / name).write_text(text)
    for purpose in ("learn", "evaluate"):
        found = read_dataset(tmp_path / name, "learn" if purpose == "learn" else "evaluate")
        expected = {"cat/a.png": "img/a.png", "big, dog/b, c.png": "img/b, c.png", "cat/000003-a.png": "more/a.png"}
        assert contents(found) == expected
        assert found.notes == (("1 rows of t.csv repeat others, and count once",) if "\ufeff" in text else ())


@pytest.mark.parametrize(
    "text",
    [
        "path,label,split\n1.png,cat,train\n2.png,dog,Validation\n3.png,dog,test\n",
        "path,label\ntrain/1.png,cat\nval/2.png,dog\ntest/3.png,dog\n",
    ],
)
def test_a_table_may_have_parts(tmp_path: Path, text: str) -> None:
    lay(tmp_path, *("1.png", "2.png", "3.png", "train/1.png", "val/2.png", "test/3.png"))
    (tmp_path / "t.csv").write_text(text)
    learned, asked = read_dataset(tmp_path / "t.csv"), read_dataset(tmp_path / "t.csv", "evaluate")
    assert list(contents(learned)) == ["train/cat/1.png", "val/dog/2.png"]
    assert learned.notes == ("1 files of the part 'test' are kept to evaluate on, and were not sent",)
    assert list(contents(asked)) == ["dog/3.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "path,label\na.png,cat\nb.png,dog\nc.png,dog\n",
            r"2 of the 3 .* not there: b.png, c.png. \(missing_files",
        ),
        ("path,label\na.png,cat\n./a.png,dog\n", r"twice, .* ./a.png as 'cat' and 'dog'. \(contradicting_labels\)"),
        ("path,label\na.png,\n", r"row 1: '' is no label. \(bad_table\)"),
        ("path,label\na.png\n", "row 1: 1 cells in place of 2"),
        ("path,label\na.png,a/b\n", "row 1: A class cannot be called 'a/b'"),
        ("path,label,split\na.png,cat,holdout\n", "the part 'holdout' is none of train, val"),
        ("name,label\na.png,cat\n", r"no column of files .* its columns are 'name', 'label'"),
        ("path,size\na.png,1\n", "no column of labels .* a.png lies in no folder"),
        ('path,label\n"a.png,cat\n', "is no table"),
        ("", "has no rows"),
        (b"path,label\na.png,caf\xe9\n", "is not in UTF-8"),
    ],
)
def test_a_table_that_is_not_understood_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    lay(tmp_path, "a.png")
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidDataset, match=said):
        read_dataset(tmp_path / "t.csv")


def test_image_folders_have_their_labels_in_metadata(tmp_path: Path) -> None:
    lay(tmp_path, "train/1.png", "train/2.png", "train/3.png", "test/4.png", "validation/cat/5.png")
    rows = [{"file_name": "1.png", "label": 0, "text": "a cat"}, {"file_name": "2.png", "label": 1, "text": "a dog"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "test" / "metadata.csv").write_text("file_name,label\n4.png,1\n")
    (tmp_path / "validation" / "metadata.csv").write_text("file_name,text\ncat/5.png,a cat\n")
    learned = read_dataset(tmp_path)
    assert list(contents(learned)) == ["train/0/1.png", "train/1/2.png", "val/cat/5.png"]
    assert learned.notes[:2] == (
        "1 files are not in metadata.jsonl, and were not sent",
        "metadata.csv has no label: the folders of the images are their labels",
    )
    assert list(contents(read_dataset(tmp_path, "evaluate"))) == ["1/4.png"]
    (tmp_path / "test" / "metadata.parquet").touch()
    (tmp_path / "test" / "metadata.csv").unlink()
    with pytest.raises(InvalidDataset, match=r"metadata.parquet is not read.*bad_layout"):
        read_dataset(tmp_path / "test")


@pytest.mark.parametrize("row", ['{"file_name": "1.png", "label": [1]}', '{"label": 1}', "[]", "{"])
def test_metadata_that_is_not_understood_is_refused(tmp_path: Path, row: str) -> None:
    (lay(tmp_path, "1.png") / "metadata.jsonl").write_text(row)
    with pytest.raises(InvalidDataset, match=r"\(bad_table\)"):
        read_dataset(tmp_path)


def test_whoever_sends_a_folder_is_warned_of_what_is_left_out(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "test/cat/2.png")
    with pytest.warns(UserWarning, match="the part 'test' are kept"):
        learned = b"".join(upload_body("t", None, tmp_path, None).chunks())
    with pytest.warns(UserWarning, match="the part 'train' are not evaluated on"):
        asked = b"".join(evaluation_body({}, tmp_path, None).chunks())
    assert (b"train/cat/1.png" in learned, b"2.png" in learned) == (True, False)
    assert (b"1.png" in asked, b"cat/2.png" in asked) == (False, True)
    assert b"cat/2.png" in b"".join(evaluation_body({}, read_dataset(tmp_path, "evaluate"), None).chunks())
