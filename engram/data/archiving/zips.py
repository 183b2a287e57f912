"""Entries of zip files: their names, their checks and their unpacking."""

from __future__ import annotations

import copy
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, BinaryIO, cast

from engram.data.archiving.decompression import suspicious, unpack_bzip2
from engram.data.archiving.entries import DAMAGE, ArchiveEntry, ArchiveLimits, Content, begins_as_image, entry_of
from engram.data.archiving.names import shown, zip_name
from engram.errors import (
    ArchiveError,
    ArchiveLink,
    BadName,
    NotAnArchive,
    SuspiciousRatio,
    TooManyEntries,
    TruncatedImage,
)

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
_OTHER_METHODS = {6: "implode", 9: "deflate64", 14: "LZMA", 93: "zstd", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd"}
"""Methods of PKWARE's APPNOTE, 4.4.5, that are in use and not read."""

_LOCAL_HEADER = 30
"""Least bytes between the place of an entry and its packed bytes."""

_END = 22
"""Length of the record at a zip's end, which is followed by a comment of at most `_COMMENT`."""
_COMMENT = 0xFFFF

_MOST_MISSES = 100
"""So many entries that pack too well to be images, and are none, are looked at before the whole is refused."""

_Member = tuple[ArchiveEntry, "_ZipContent"]


def zip_entries(path: Path, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Content]]:
    """All entries of a zip in the order of its directory, once they are known to be sound.

    Raises
    ------
    ArchiveError
        TooManyEntries, NotAnArchive, BadName, UnsafePath, ArchiveLink, SuspiciousRatio, and an entry that is encrypted
        or packed by a method that is not read.
    zipfile.BadZipFile, Exception
        One of `DAMAGE`.
    """
    with path.open("rb") as file, _opened(file, limits) as archive:
        infos = archive.infolist()
        if len(infos) >= limits.max_entries:
            raise TooManyEntries(f"the archive has {len(infos)} entries; fewer than {limits.max_entries} are allowed")
        _check_extent(file, archive)
        members = [_member(archive, info) for info in infos]
        _check_ratio(members, path.stat().st_size, limits)
        yield from members


def _opened(file: BinaryIO, limits: ArchiveLimits) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(cast("IO[bytes]", _Directory(file, limits)))
    except UnicodeDecodeError as error:
        name = bytes(error.object).decode("utf-8", "surrogateescape")
        raise BadName(f"the name {shown(name)} is said to be in UTF-8 and is not; pack the folders anew") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    name = zip_name(info)
    entry = entry_of(name, info.file_size, folder=name.endswith(("/", "\\")))
    if not entry.junk:
        _check_kind(info, shown(name))
    return entry, _ZipContent(archive, info)


def _check_kind(info: zipfile.ZipInfo, name: str) -> None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ArchiveLink(f"{name} is a link, a device or a pipe")
    if info.flag_bits & 0x1:
        raise ArchiveError(f"{name} is encrypted; pack without a password")
    if info.compress_type not in _METHODS:
        method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise ArchiveError(f"{name} is packed by {method}, which is not read; pack by deflate, or without compression")


class _ZipContent:
    """Unpacks one entry, never more of it than the directory says it has."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._archive = archive
        self.info = info

    def __call__(self, most: int | None = None) -> bytes:
        size = self.info.file_size
        try:
            return self._read(size if most is None else min(most, size))
        except DAMAGE as error:
            raise TruncatedImage("the entry is damaged") from error

    def _read(self, size: int) -> bytes:
        if self.info.compress_type != zipfile.ZIP_BZIP2:
            with self._archive.open(self.info) as file:
                return file.read(size)
        # Python unpacks bzip2 without a bound, so that its packed bytes are read as if they were not packed.
        packed = copy.copy(self.info)
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, packed.compress_size
        del packed.CRC
        with self._archive.open(packed) as file:
            data = unpack_bzip2(file, size)
        if size == self.info.file_size and zlib.crc32(data) != self.info.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return data


def _check_extent(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """See that the file is one zip from its first byte to its last, and that no entries lie over one another.

    Of two zips one after the other only the last one's directory is found.
    """
    spans = sorted((info.header_offset, info.compress_size) for info in archive.infolist())
    if (spans[0][0] if spans else archive.start_dir) != 0:
        raise NotAnArchive("there are other bytes before the zip's first entry, perhaps an archive; upload one zip")
    if any(at + _LOCAL_HEADER + length > following for (at, length), (following, _) in pairwise(spans)):
        raise SuspiciousRatio("entries of the archive lie over one another")
    file.seek(0, 2)
    file.seek(max(0, file.tell() - _END - _COMMENT))
    tail = file.read()
    end = tail.rfind(b"PK\5\6")
    comment = int.from_bytes(tail[end + _END - 2 : end + _END], "little")
    if tail[end + _END + comment :].strip(b"\0"):
        raise NotAnArchive("there are other bytes after the zip's end, perhaps an archive; upload one zip")


def _check_ratio(members: Iterable[_Member], length: int, limits: ArchiveLimits) -> None:
    """Refuse what unpacks to implausibly many bytes.

    By the length of the file and not by the packed sizes it states, which a forged directory may hold. Entries that
    begin as images count for less: what one of them costs is bounded by the limits on images, and a blank one packs as
    well as a bomb does.
    """
    members = [(entry, content) for entry, content in members if not entry.junk]
    excess = sum(entry.size for entry, _ in members) - limits.ratio_from_bytes - limits.max_ratio * length
    total = granted = misses = 0
    by_size = sorted(members, key=lambda member: -member[0].size)
    for entry, content in by_size:
        big = entry.size > limits.ratio_from_bytes
        if not big and granted >= excess:
            return
        total += entry.size
        if total > limits.max_total_bytes or misses > _MOST_MISSES:
            break
        if entry.size <= limits.max_ratio * content.info.compress_size:
            continue
        if _is_image(content):
            granted = min(granted + entry.size, limits.images_from_bytes)
        elif big:
            raise suspicious(repr("/".join(entry.path)), content.info.compress_size, entry.size)
        else:
            misses += 1
    if granted < excess:
        raise suspicious("the archive", length, sum(entry.size for entry, _ in members))


def _is_image(content: Content) -> bool:
    try:
        return begins_as_image(content)
    except TruncatedImage:
        return False


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
