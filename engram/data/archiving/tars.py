"""Entries of tar files, plain or packed: their names, their checks and their unpacking."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from engram.data.archiving.decompression import CHUNK, Unpacker, suspicious
from engram.data.archiving.entries import DAMAGE, ArchiveEntry, ArchiveLimits, Content, begins_as_image, entry_of
from engram.data.archiving.names import shown
from engram.data.formats import HEAD, image_format
from engram.errors import ArchiveError, ArchiveLink, ArchiveTooLarge, NotAnArchive

_HEADERS = 4096
"""Bytes around the contents of an entry, as a rule no more."""

_PACKERS = {"gz": "gzip", "bz2": "bzip2", "xz": "xz"}
"""Names of what packs a tar, by its suffix."""

_PADDING = 64 * 1024
"""Bytes read at once after an archive's end; a multiple of the length of a block."""


def tar_entries(path: Path, kind: str, limits: ArchiveLimits) -> Iterator[tuple[ArchiveEntry, Content]]:
    """All entries of the tar at `path` in their own order; of several one after the other, those of all.

    Raises
    ------
    ArchiveError
        As soon as something is known to be wrong, an end without its mark and other bytes behind it included.
    tarfile.TarError, Exception
        One of `DAMAGE`.
    """
    with path.open("rb") as file:
        packed = Unpacker(file, kind.removeprefix("tar").removeprefix("."), limits.max_ratio, limits.ratio_from_bytes)
        packed.limit = limits.max_total_bytes
        if kind != "tar":
            _check_content(packed, kind.removeprefix("tar."))
        granted = 0
        more = True
        while more:
            # With the encoding and the handling of its errors said, so that the process's locale makes no difference.
            reader = cast("IO[bytes]", packed)
            with tarfile.TarFile(fileobj=reader, mode="r", encoding="utf-8", errors="surrogateescape") as archive:
                while (member := archive.next()) is not None:
                    size = member.size if member.isreg() else 0
                    entry, content = entry_of(member.name, size, folder=member.isdir()), _TarContent(packed, member)
                    if not entry.junk:
                        _check_kind(member, limits)
                        needed = size + _HEADERS
                        if packed.exceeds(needed) and granted < limits.images_from_bytes and begins_as_image(content):
                            packed.free += needed
                            granted += needed
                    yield from _unpacked(entry, content, packed, limits, ratio=kind != "tar")
            if packed.last.strip(b"\0") or len(packed.last) < tarfile.BLOCKSIZE:
                raise NotAnArchive("the archive is cut off: it ends without the mark of its end")
            more = _is_followed(packed)


def _check_content(packed: Unpacker, kind: str) -> None:
    """Refuse a packed file of another known format than tar, with its name."""
    head = packed.read(HEAD)
    packed.give_back(head)
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        known = image_format(head)
        if known not in (None, "tar archive"):
            raise NotAnArchive(
                f"the file is packed as {_PACKERS[kind]}, and what is inside is no tar: it begins as {known}"
            ) from error


def _check_kind(member: tarfile.TarInfo, limits: ArchiveLimits) -> None:
    name = shown(member.name)
    if not (member.isreg() or member.isdir()):
        raise ArchiveLink(f"{name} is a link, a device or a pipe")
    if member.issparse():
        raise ArchiveError(f"{name} is stored as a sparse file; pack without --sparse")
    if member.isreg() and member.size > limits.max_entry_bytes:
        raise ArchiveTooLarge(f"{name} unpacks to {member.size} bytes; {limits.max_entry_bytes} are allowed for a file")


class _TarContent:
    """Unpacks one entry, on the way forwards through the archive."""

    def __init__(self, packed: Unpacker, member: tarfile.TarInfo) -> None:
        self._packed = packed
        self._member = member
        self._head = b""

    @property
    def begin(self) -> int:
        return self._member.offset_data

    def __call__(self, most: int | None = None) -> bytes:
        wanted = self._member.size if most is None else min(most, self._member.size)
        try:
            self._head += self._rest(min(wanted, HEAD))
            return self._head[:wanted] + self._rest(wanted)
        except DAMAGE as error:
            raise NotAnArchive("the archive is cut off or damaged") from error

    def _rest(self, end: int) -> bytes:
        """From where the head ends to `end`."""
        begin = len(self._head)
        if end <= begin:
            return b""
        self._packed.seek(self.begin + begin)
        return self._packed.read_all(end - begin)


def _unpacked(
    entry: ArchiveEntry, content: _TarContent, packed: Unpacker, limits: ArchiveLimits, *, ratio: bool
) -> Iterator[tuple[ArchiveEntry, Content]]:
    """Hand out one entry, and go to its end, where it is known how well it packs."""
    before = packed.consumed
    judged = ratio and not entry.junk and entry.size > limits.ratio_from_bytes and not begins_as_image(content)
    yield entry, content
    if ratio and not entry.junk:
        packed.seek(content.begin + entry.size)
        # A block on either side, because packed bytes are only counted block by block.
        consumed = packed.consumed - before + 2 * CHUNK
        if judged and entry.size > limits.max_ratio * consumed:
            raise suspicious(repr("/".join(entry.path)), consumed, entry.size)


def _is_followed(packed: Unpacker) -> bool:
    """Whether another archive begins behind the zeros that an archive ends with.

    Raises
    ------
    NotAnArchive
        Something else does.
    """
    while chunk := packed.read(_PADDING):
        rest = chunk.lstrip(b"\0")
        if rest:
            begin = (len(chunk) - len(rest)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
            packed.give_back(chunk[begin:])
            block = packed.read(tarfile.BLOCKSIZE)
            try:
                tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.TarError, ValueError) as error:
                raise NotAnArchive("there are other bytes after the end of the archive, which are no tar") from error
            packed.give_back(block)
            return True
    return False
