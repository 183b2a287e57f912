"""Entries of archives, the limits on them, and what an entry may unpack to."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from typing import Protocol, Self

from engram.data.archiving.names import path_of
from engram.data.formats import HEAD, READ_FORMATS, image_format

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
    """Unpacked bytes for each packed byte, of the whole archive and of each entry that does not begin as an image."""
    ratio_from_bytes: int = 16 * 2**20
    """So many unpacked bytes are never held against an entry or an archive."""
    images_from_bytes: int = 2**30
    """Nor so many of entries that begin as images: blank ones pack well, and cost what other images cost."""
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
    junk: bool = False
    """What a system or a program left behind; nothing about it was judged."""


class Content(Protocol):
    """Unpacks the entry it came with; only valid until the next entry is asked for."""

    def __call__(self, most: int | None = None) -> bytes:
        """All bytes, or `most` first ones, which may be asked for before all.

        Raises
        ------
        TruncatedImage, NotAnArchive
            The entry, or the whole archive from here on, is damaged.
        """
        ...


def entry_of(name: str, size: int, *, folder: bool) -> ArchiveEntry:
    """The entry of a name as it is in the archive.

    Raises
    ------
    UnsafePath, BadName
    """
    path, junk = path_of(name)
    return ArchiveEntry(path, size, folder, junk)


def begins_as_image(content: Content) -> bool:
    """Whether an entry begins like an image that is decoded, which limits of its own hold for."""
    return image_format(content(HEAD)) in READ_FORMATS
