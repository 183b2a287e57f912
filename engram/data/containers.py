"""Zip and tar files as sequences of checked entries, never unpacked to disk."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from engram.data.archiving.entries import DAMAGE, ArchiveEntry, ArchiveLimits, Content
from engram.data.archiving.tars import tar_entries
from engram.data.archiving.zips import zip_entries
from engram.data.formats import HEAD, image_format
from engram.errors import (
    ArchiveError,
    ArchiveTooLarge,
    InputError,
    NotAnArchive,
    TooManyEntries,
    require_type,
)

__all__ = ["ArchiveEntry", "ArchiveLimits", "Content", "as_path", "recognise", "walk"]


def as_path(what: str, given: Path | str) -> Path:
    """The path of a file or folder, given as a path or as a string.

    Raises
    ------
    InputError
        It is neither.
    """
    try:
        return Path(given)
    except TypeError as error:
        raise InputError(f"{what} must be a path, not {type(given).__name__}") from error


def recognise(path: Path | str) -> str:
    """`zip`, `tar`, `tar.gz`, `tar.bz2` or `tar.xz`, by the first bytes and not by the name.

    Raises
    ------
    NotAnArchive
        The file is none of them.
    InputError
        What is no path.
    OSError
        The file cannot be read.
    """
    with as_path("the archive", path).open("rb") as file:
        head = file.read(HEAD)
    for magic, kind in (
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
        (b"\x1f\x8b", "tar.gz"),
        (b"BZh", "tar.bz2"),
        (b"\xfd7zXZ\0", "tar.xz"),
    ):
        if head.startswith(magic):
            return kind
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        known = image_format(head)
        begins = f"; it begins as {known}" if known else "" if head else "; it is empty"
        raise NotAnArchive(f"the file is neither a zip nor a tar archive{begins}") from error
    return "tar"


def walk(path: Path | str, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Content]]:
    """All entries of the archive at `path` in their own order, each checked before it is handed out.

    Raises
    ------
    NotAnArchive, UnsafePath, BadName, ArchiveLink, TooManyEntries, SuspiciousRatio, ArchiveTooLarge, ArchiveError
        As soon as they are known: of a zip from its directory, of a tar while it is unpacked.
    TruncatedImage
        From reading one entry of a zip whose bytes are damaged; the others can still be read.
    InputError
        What is no path, or limits of another type.
    OSError
        The file cannot be opened.
    """
    require_type("limits", limits, ArchiveLimits, InputError)
    path = as_path("the archive", path)
    kind = recognise(path)
    seen: set[tuple[str, ...]] = set()
    total = 0
    try:
        found = zip_entries(path, limits) if kind == "zip" else tar_entries(path, kind, limits)
        for number, (entry, content) in enumerate(found, 1):
            if number >= limits.max_entries:
                raise TooManyEntries(f"the archive has {limits.max_entries} entries or more")
            if entry.path and not entry.junk:
                total += entry.size
                _check_size(entry, total, limits)
                if entry.path in seen and not entry.folder:
                    name = "/".join(entry.path)
                    raise ArchiveError(f"the archive holds {name!r} twice, as updates of archives leave it; pack anew")
                seen.add(entry.path)
            if entry.path:
                yield entry, content
    except DAMAGE as error:
        raise NotAnArchive("the archive is cut off or damaged") from error


def _check_size(entry: ArchiveEntry, total: int, limits: ArchiveLimits) -> None:
    if entry.size > limits.max_entry_bytes:
        allowed = limits.max_entry_bytes
        raise ArchiveTooLarge(
            f"{'/'.join(entry.path)!r} unpacks to {entry.size} bytes; {allowed} are allowed for a file"
        )
    if total > limits.max_total_bytes:
        raise ArchiveTooLarge(f"the archive unpacks to more than {limits.max_total_bytes} bytes")
