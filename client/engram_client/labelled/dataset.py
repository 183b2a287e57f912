"""Data sets: the files of labelled images that are sent, and what is left out of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engram_client.errors import InvalidDataset
from engram_client.labelled.archives import LEFT_BEHIND, ZipMember, check_class, file_member, folder_members
from engram_client.labelled.parts import Part, Purpose, kept, note, part_of
from engram_client.labelled.tables import LABELS, SUFFIXES, LabelledFile, located, read_table

METADATA = ("metadata.csv", "metadata.jsonl")
"""What a Hugging Face image folder has its labels in."""
_UNREAD = "metadata.parquet"


@dataclass(frozen=True)
class Dataset:
    """Labelled images that can be sent."""

    members: tuple[ZipMember, ...]
    notes: tuple[str, ...] = ()
    """Sentences about what is left out, or was settled."""


def is_dataset(path: Path) -> bool:
    """Whether a path is read by `read_dataset`, and not sent as it is."""
    return path.is_dir() or path.suffix.lower() in SUFFIXES


def read_dataset(path: str | os.PathLike[str], purpose: Purpose = "learn") -> Dataset:
    """The labelled images of a folder or a table.

    Parameters
    ----------
    path
        A folder of `<class>/<image>`, or of parts (`train`, `val`, `valid`, `validation`, `test`) that are such
        folders; a folder, or parts, with a `metadata.csv` or `metadata.jsonl` of `file_name` and `label`; a CSV, TSV or
        JSON Lines file of paths and labels, whose paths are relative to it.
    purpose
        To learn, `test` is left out; to evaluate, it alone is taken, where there is one.

    Raises
    ------
    InvalidDataset
        A table that cannot be understood, files that it names and that are not there, a file with two labels.
    OSError, ValueError
        As `folder_members`.
    """
    path = Path(path)
    if not path.is_dir():
        return _of_table(path, read_table(path), purpose)
    if (table := _metadata(path)) is not None:
        return _of_table(table, read_table(table), purpose, path)
    parts = _part_folders(path)
    if not parts:
        return Dataset(tuple(folder_members(path)))
    return _of_parts(parts, purpose)


def _of_parts(folders: Mapping[Part, Path], purpose: Purpose) -> Dataset:
    sent = kept(folders.keys(), purpose)
    members: list[ZipMember] = []
    notes: list[str] = []
    counts: dict[Part, int] = {}
    for part, folder in folders.items():
        if part not in sent:
            counts[part] = sum(member.open is not None for member in folder_members(folder))
            continue
        prefix = f"{part}/" if purpose == "learn" else ""
        if (table := _metadata(folder)) is None:
            members += folder_members(folder, prefix)
        else:
            rows = [LabelledFile(row.row, row.name, row.label, None) for row in read_table(table)]
            found = _of_table(table, rows, purpose, folder, prefix)
            members += found.members
            notes += found.notes
    if (left := note(counts, sent, purpose)) is not None:
        notes.append(left)
    (above,) = {folder.parent for folder in folders.values()}
    inside = {folder.name for folder in folders.values()}
    beside = [one for one in folder_members(above) if one.open and one.name.split("/")[0] not in inside]
    if beside:
        notes.append(f"{len(beside)} files beside the parts were not sent")
    return Dataset(tuple(members), tuple(notes))


def _of_table(
    table: Path, rows: Sequence[LabelledFile], purpose: Purpose, folder: Path | None = None, prefix: str = ""
) -> Dataset:
    """The files of a table; of a folder's metadata also a note of the files that it does not name."""
    notes: list[str] = []
    rows = _once(table, rows, notes)
    _check_files(table, rows)
    named = rows
    parts: Counter[Part] = Counter(row.part or "train" for row in rows)
    if any(row.part for row in rows):
        sent = kept(parts.keys(), purpose)
        if (left := note(parts, sent, purpose)) is not None:
            notes.append(left)
        rows = [row for row in rows if (row.part or "train") in sent]
    labels = [_label(table, row) for row in rows]
    if rows and rows[0].label is None:
        notes.append(f"{table.name} has no label: the folders of the images are their labels")
    parted = purpose == "learn" and any(row.part for row in rows)
    members = []
    taken: set[str] = set()
    for row, label in zip(rows, labels, strict=True):
        place = f"{prefix}{row.part or 'train'}/{label}" if parted else f"{prefix}{label}"
        file = row.name.rsplit("/", 1)[-1]
        name = f"{place}/{file}"
        if name in taken:
            name = f"{place}/{row.row:06d}-{file}"
        taken.add(name)
        members.append(file_member(name, located(table.parent, row.name)))
    if folder is not None and (unlisted := _unlisted(folder, table, named)):
        notes.append(f"{unlisted} files are not in {table.name}, and were not sent")
    return Dataset(tuple(members), tuple(notes))


def _once(table: Path, rows: Sequence[LabelledFile], notes: list[str]) -> list[LabelledFile]:
    """The rows without repeated ones."""
    seen: dict[str, LabelledFile] = {}
    contradicting: dict[str, tuple[str | None, str | None]] = {}
    for row in rows:
        first = seen.setdefault(os.path.normpath(row.name), row)
        if (first.label, first.part) != (row.label, row.part):
            contradicting[row.name] = (first.label or first.part, row.label or row.part)
    if contradicting:
        name, (one, other) = next(iter(contradicting.items()))
        raise InvalidDataset(
            "contradicting_labels",
            f"{table} names {len(contradicting)} files twice, with different labels or parts: {name} as {one!r} and "
            f"{other!r}" + (", ..." if len(contradicting) > 1 else "."),
        )
    if len(seen) < len(rows):
        notes.append(f"{len(rows) - len(seen)} rows of {table.name} repeat others, and count once")
    return list(seen.values())


def _check_files(table: Path, rows: Sequence[LabelledFile]) -> None:
    missing = [row.name for row in rows if not located(table.parent, row.name).is_file()]
    if missing:
        raise InvalidDataset(
            "missing_files",
            f"{len(missing)} of the {len(rows)} files that {table} names are not there: {', '.join(missing)}.",
        )


def _label(table: Path, row: LabelledFile) -> str:
    label = row.label
    if label is None:
        folders = row.name.split("/")[:-1]
        if not folders or part_of(folders[-1]) is not None:
            raise InvalidDataset(
                "bad_table",
                f"{table} has no column of labels ({', '.join(LABELS)}), and {row.name} lies in no folder of a class.",
            )
        label = folders[-1]
    try:
        check_class(label)
    except ValueError as error:
        raise InvalidDataset("bad_table", f"{table}, row {row.row}: {error}") from error
    return label


def _metadata(folder: Path) -> Path | None:
    """The file with the labels of an image folder."""
    there = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(there) > 1:
        raise InvalidDataset("bad_layout", f"{folder} has {' and '.join(METADATA)}; one of them says the labels.")
    if not there and (folder / _UNREAD).is_file():
        raise InvalidDataset("bad_layout", f"{folder / _UNREAD} is not read; write it as metadata.csv.")
    return there[0] if there else None


def _unlisted(folder: Path, table: Path, rows: Sequence[LabelledFile]) -> int:
    listed = {os.path.normpath(row.name) for row in rows}
    names = (member.name for member in folder_members(folder) if member.open is not None)
    return sum(name != table.name and os.path.normpath(name) not in listed for name in names)


def _part_folders(folder: Path) -> dict[Part, Path]:
    """The parts of a data set, which may lie in one more folder; none where there is no `train` of folders."""
    folders = _folders(folder)
    if len(folders) == 1 and part_of(folders[0].name) is None:
        folders = _folders(folders[0])
    found: dict[Part, Path] = {}
    for one in folders:
        if (part := part_of(one.name)) is None:
            continue
        if part in found:
            raise InvalidDataset("bad_layout", f"{found[part]} and {one} are the same part; leave one of them out.")
        found[part] = one
    train = found.get("train")
    if train is None or not (_folders(train) or _metadata(train)):
        return {}
    if strange := next((one for one in folders if part_of(one.name) is None and _folders(one)), None):
        raise InvalidDataset("bad_layout", f"Beside {train} there is {strange.name!r}, which is no part; move it away.")
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def _folders(folder: Path) -> list[Path]:
    """The folders in one, by name; what programs leave behind, and hidden ones, are none."""
    names = sorted(name for name in os.listdir(folder) if name not in LEFT_BEHIND and not name.startswith("."))
    return [folder / name for name in names if (folder / name).is_dir()]
