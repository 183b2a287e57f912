"""Tables of images and their labels: CSV files, and JSON Lines as in the metadata of image folders."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from os.path import splitext
from pathlib import Path

from engram_client.errors import InvalidDataset
from engram_client.labelled.parts import NAMED, Part, part_of

SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Of files that are tables."""

FILES = ("file_name", "path", "filename", "file", "image", "image_path", "file_path", "filepath")
LABELS = ("label", "class", "category", "class_name", "label_name", "target")
PARTS = ("split", "subset")
"""Names of columns, in the order in which they are looked for; in upper or lower case."""

_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class LabelledFile:
    """One row of a table."""

    row: int
    """From 1 on, the header not counted."""
    name: str
    """As the table has it, with `/` between folders."""
    label: str | None
    """None where the table has no labels."""
    part: Part | None


def read_table(path: Path) -> list[LabelledFile]:
    """The rows of a table in their order; empty lines are passed over.

    The first line of a CSV names its columns, unless it begins with a file's name: then the columns are path, label
    and, where there is a third one, part.

    Raises
    ------
    InvalidDataset
        It is no text in UTF-8, lacks a column or a value, or names a part that there is not.
    OSError
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDataset("bad_table", f"{path} is not in UTF-8; save it anew in that encoding.") from error
    rows = _json_rows(path, text) if path.suffix.lower() == ".jsonl" else _csv_rows(path, text)
    found = [_labelled(path, number, row) for number, row in enumerate(rows, 1)]
    if not found:
        raise InvalidDataset("bad_table", f"{path} has no rows.")
    return _with_folders_parts(found)


@dataclass(frozen=True)
class _Row:
    name: object
    label: object
    part: object
    labelled: bool


def _csv_rows(path: Path, text: str) -> Iterator[_Row]:
    first = text.split("\n", 1)[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
    try:
        lines = [
            [cell.strip() for cell in line]
            for line in csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
            if any(cell.strip() for cell in line)
        ]
    except csv.Error as error:
        raise InvalidDataset("bad_table", f"{path} is no table: {error}.") from error
    if not lines:
        return
    width = len(lines[0])
    headed = any(cell.casefold() in FILES for cell in lines[0])
    if width in (2, 3) and not headed and splitext(lines[0][0])[1]:
        columns = ["path", "label", "split"][:width]
    else:
        columns, lines = lines[0], lines[1:]
    choose = _columns(path, columns)
    for number, line in enumerate(lines, 1):
        if len(line) != width:
            raise InvalidDataset("bad_table", f"{path}, row {number}: {len(line)} cells in place of {width}.")
        yield choose(dict(zip(columns, line, strict=True)))


def _json_rows(path: Path, text: str) -> Iterator[_Row]:
    lines = [line for line in text.split("\n") if line.strip()]
    choose: Callable[[Mapping[str, object]], _Row] | None = None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidDataset("bad_table", f"{path}, row {number} is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise InvalidDataset("bad_table", f"{path}, row {number} is no JSON object.")
        choose = choose or _columns(path, list(row))
        yield choose(row)


def _columns(path: Path, columns: Sequence[str]) -> Callable[[Mapping[str, object]], _Row]:
    """What picks the values of a row by the names of its columns."""
    plain = {name.strip().casefold(): name for name in reversed(columns)}
    file, label, part = (
        next((plain[name] for name in names if name in plain), None) for names in (FILES, LABELS, PARTS)
    )
    if file is None:
        there = ", ".join(map(repr, columns)) or "none"
        raise InvalidDataset(
            "bad_table", f"{path} has no column of files ({', '.join(FILES)}); its columns are {there}."
        )
    name = file
    return lambda row: _Row(
        row.get(name),
        None if label is None else row.get(label),
        None if part is None else row.get(part),
        label is not None,
    )


def _labelled(path: Path, number: int, row: _Row) -> LabelledFile:
    if not isinstance(row.name, str) or not row.name:
        raise InvalidDataset("bad_table", f"{path}, row {number} names no file.")
    label = None
    if row.labelled:
        # Of JSON; a fraction is no class, and a list is several.
        if isinstance(row.label, bool) or not isinstance(row.label, str | int) or row.label == "":
            raise InvalidDataset("bad_table", f"{path}, row {number}: {row.label!r} is no label.")
        label = str(row.label).strip()
    part = None
    if row.part not in (None, ""):
        part = part_of(str(row.part))
        if part is None:
            raise InvalidDataset("bad_table", f"{path}, row {number}: the part {row.part!r} is none of {NAMED}.")
    return LabelledFile(number, row.name.replace("\\", "/"), label, part)


def _with_folders_parts(rows: list[LabelledFile]) -> list[LabelledFile]:
    """The rows, their parts taken from the first folder of each where all lie in one and no column says them."""
    parts = [part_of(row.name.split("/")[0]) if "/" in row.name else None for row in rows]
    if any(row.part for row in rows) or "train" not in parts or None in parts:
        return rows
    return [LabelledFile(row.row, row.name, row.label, part) for row, part in zip(rows, parts, strict=True)]


def located(folder: Path, name: str) -> Path:
    """The file that a table in `folder` names."""
    return folder / name.replace("\\", "/")
