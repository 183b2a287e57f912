"""Zip and tar files as sequences of checked entries, never unpacked to disk."""

from __future__ import annotations

import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO, BinaryIO, Protocol, Self, cast

from engram.data.decompression import CHUNK, Unpacker
from engram.errors import (
    ArchiveError,
    ArchiveLink,
    ArchiveTooLarge,
    InputError,
    NotAnArchive,
    SuspiciousRatio,
    TooManyEntries,
    TruncatedImage,
    UnsafePath,
    require_type,
)

DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    LZMAError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    NotImplementedError,
    OverflowError,
    # Python's tar reader calls itself once for every extended header in a row.
    RecursionError,
)
"""What Python's readers raise over archives that were cut off or tampered with."""


class ArchiveLimitSettings(Protocol):
    """Settings that say how large archives of images may be."""

    @property
    def max_archive_entries(self) -> int: ...

    @property
    def max_archive_bytes(self) -> int: ...

    @property
    def max_image_bytes(self) -> int: ...

    @property
    def max_archive_ratio(self) -> float: ...

    @property
    def max_decoded_bytes(self) -> int: ...


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits on the entries, sizes and compression ratio of one archive."""

    max_entries: int = 100_000
    """Refused from so many entries on, folders and hidden files included."""
    max_total_bytes: int = 8 * 2**30
    """Unpacked."""
    max_entry_bytes: int = 64 * 2**20
    """Of one unpacked entry."""
    max_ratio: float = 200.0
    """Unpacked bytes for each packed byte, of the whole archive and of each entry."""
    ratio_from_bytes: int = 100_000
    """Less than so many unpacked bytes are never held against an entry or an archive."""
    max_decoded_bytes: int = 4 * 2**30
    """Of all images together, decoded and resized, since they are held in memory."""

    @classmethod
    def of(cls, settings: ArchiveLimitSettings) -> Self:
        """The limits that `settings` say."""
        return cls(
            max_entries=settings.max_archive_entries,
            max_total_bytes=settings.max_archive_bytes,
            max_entry_bytes=settings.max_image_bytes,
            max_ratio=settings.max_archive_ratio,
            max_decoded_bytes=settings.max_decoded_bytes,
        )


@dataclass(frozen=True)
class ArchiveEntry:
    """One file or folder of an archive; `path` is relative, without `.` and `..`, in Unicode's composed form."""

    path: tuple[str, ...]
    size: int
    folder: bool


Read = Callable[[], bytes]
"""Unpacks the entry it came with; only valid until the next entry is asked for."""


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
        head = file.read(512)
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
        raise NotAnArchive("the file is neither a zip nor a tar archive") from error
    return "tar"


def walk(path: Path | str, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Read]]:
    """All entries of the archive at `path` in their own order, each checked before it is handed out.

    Raises
    ------
    NotAnArchive, UnsafePath, ArchiveLink, TooManyEntries, SuspiciousRatio, ArchiveTooLarge, ArchiveError
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
        for number, (entry, read) in enumerate(_zip(path, limits) if kind == "zip" else _tar(path, kind, limits), 1):
            if number >= limits.max_entries:
                raise TooManyEntries(f"the archive has {limits.max_entries} entries or more")
            if entry.size > limits.max_entry_bytes:
                raise ArchiveTooLarge(f"{'/'.join(entry.path)!r} unpacks to {entry.size} bytes")
            total += entry.size
            if total > limits.max_total_bytes:
                raise ArchiveTooLarge(f"the archive unpacks to more than {limits.max_total_bytes} bytes")
            if not entry.path:
                continue
            if entry.path in seen and not entry.folder:
                raise ArchiveError(f"the archive holds {'/'.join(entry.path)!r} twice")
            seen.add(entry.path)
            yield entry, read
    except DAMAGE as error:
        raise NotAnArchive("the archive is cut off or damaged") from error


def _zip(path: Path, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Read]]:
    with path.open("rb") as file, zipfile.ZipFile(cast("IO[bytes]", _Directory(file, limits))) as archive:
        _check_zip(path, archive.infolist(), limits)
        for info in archive.infolist():
            entry = ArchiveEntry(_safe(info.orig_filename), info.file_size, info.is_dir())

            def read(info: zipfile.ZipInfo = info) -> bytes:
                try:
                    return archive.read(info)
                except DAMAGE as error:
                    raise TruncatedImage("the entry is damaged") from error

            yield entry, read


def _check_zip(path: Path, infos: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if len(infos) >= limits.max_entries:
        raise TooManyEntries(f"the archive has {len(infos)} entries; fewer than {limits.max_entries} are allowed")
    for info in infos:
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ArchiveLink(f"{info.filename!r} is a link, a device or a pipe")
        if info.flag_bits & 0x1:
            raise ArchiveError(f"{info.filename!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            raise ArchiveError(f"{info.filename!r} is packed by a method that is not supported; use deflate")
        _check_ratio(info.file_size, info.compress_size, repr(info.filename), limits)
    # By the length of the file and not by the sizes it states: entries may lie over one another.
    _check_ratio(sum(info.file_size for info in infos), path.stat().st_size, "the archive", limits)


def _tar(path: Path, kind: str, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Read]]:
    with path.open("rb") as file:
        packed = Unpacker(file, kind.removeprefix("tar").removeprefix("."), limits.max_ratio, limits.ratio_from_bytes)
        packed.limit = limits.max_total_bytes
        with tarfile.TarFile(fileobj=cast("IO[bytes]", packed), mode="r") as archive:
            while (member := archive.next()) is not None:
                if not (member.isreg() or member.isdir()):
                    raise ArchiveLink(f"{member.name!r} is a link, a device or a pipe")
                if member.issparse():
                    raise ArchiveError(f"{member.name!r} is a sparse file")
                if member.isreg() and member.size > limits.max_entry_bytes:
                    raise ArchiveTooLarge(f"{member.name!r} unpacks to {member.size} bytes")
                before = packed.consumed

                def read(member: tarfile.TarInfo = member) -> bytes:
                    try:
                        packed.seek(member.offset_data)
                        return packed.read_all(member.size)
                    except DAMAGE as error:
                        raise NotAnArchive("the archive is cut off or damaged") from error

                size = 0 if member.isdir() else member.size
                yield ArchiveEntry(_safe(member.name), size, member.isdir()), read
                if kind != "tar":
                    packed.seek(member.offset_data + size)
                    # A block on either side, because packed bytes are only counted block by block.
                    _check_ratio(size, packed.consumed - before + 2 * CHUNK, repr(member.name), limits)
            if packed.last.strip(b"\0") or len(packed.last) < tarfile.BLOCKSIZE:
                raise NotAnArchive("the archive is cut off: it ends without the mark of its end")


def _check_ratio(unpacked: int, packed: int, what: str, limits: ArchiveLimits) -> None:
    if unpacked > limits.ratio_from_bytes and unpacked > limits.max_ratio * packed:
        raise SuspiciousRatio(f"{what} unpacks from {packed} to {unpacked} bytes")


def _safe(name: str) -> tuple[str, ...]:
    """The parts of an entry's name, or a refusal; `\\` separates like `/`, as it does where such archives come from."""
    shown = ascii(name[:200])
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        raise UnsafePath(f"the name {shown} holds control characters or is not Unicode")
    plain = unicodedata.normalize("NFC", name).replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain):
        raise UnsafePath(f"the name {shown} is an absolute path")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if ".." in parts:
        raise UnsafePath(f"the name {shown} leads out of the archive")
    return parts


class _Directory:
    """A zip file whose directory cannot be larger than the allowed number of entries explains.

    Python reads the whole directory into memory before anything can be counted.
    """

    def __init__(self, file: BinaryIO, limits: ArchiveLimits) -> None:
        self._file = file
        self._most = max(limits.max_entries * 256, 2**20)
        self.seek = file.seek
        self.tell = file.tell
        self.seekable = file.seekable
        self.close = file.close

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise TooManyEntries("the archive's directory is too large for the allowed number of entries")
        return self._file.read(size)
