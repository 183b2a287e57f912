"""Decompression of gzip, bzip2 and xz streams, bounded in size and compression ratio."""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, BinaryIO, Protocol

from engram.errors import ArchiveError, ArchiveTooLarge, NotAnArchive, SuspiciousRatio

CHUNK = 16 * 1024
"""Packed bytes read at once; the ratio is judged at this grain."""

MAX_READ = 2**20
"""The most that is handed out at once. Only a header that pretends to be huge asks for more."""

XZ_MEMORY = 256 * 2**20
"""Memory that unpacking xz may take: twice what its strongest preset asks for."""


class Decompressor(Protocol):
    """The interface of the decompressors of `bz2` and `lzma`, which `Gzip` has too."""

    def decompress(self, data: bytes, max_length: int) -> bytes: ...
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...


class Gzip:
    """`zlib`'s gzip reader behind the interface of the other two."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._full = False

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._full = len(out) == max_length
        return out

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._full and not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data


DECOMPRESSORS: dict[str, Callable[[], Decompressor]] = {
    "gz": Gzip,
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=XZ_MEMORY),
}


_BEGINNINGS = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}


def suspicious(what: str, packed: int, unpacked: int) -> SuspiciousRatio:
    """The refusal of what unpacks to implausibly many bytes, with what to do where it is no attack."""
    return SuspiciousRatio(
        f"{what} unpacks from {packed} to {unpacked} bytes or more, which is taken for a bomb; if it is none, pack "
        "without compression, store images as PNG instead of BMP or plain TIFF, or have ENGRAM_MAX_ARCHIVE_RATIO raised"
    )


class Unpacker(io.RawIOBase):
    """A file that can only be read forwards, unpacked on the way.

    Parameters
    ----------
    file
        The packed file.
    kind
        `gz`, `bz2`, `xz`, or empty for a file that is not packed.
    max_ratio, free
        Refused when more than `free + max_ratio * packed` bytes come out.

    Raises
    ------
    SuspiciousRatio, ArchiveTooLarge
        While reading, after at most a few chunks too many.
    NotAnArchive
        Where a packed stream ends, other bytes follow than zeros or one more.
    ArchiveError
        More than `MAX_READ` bytes are asked for at once.
    """

    def __init__(self, file: BinaryIO, kind: str, max_ratio: float, free: int) -> None:
        super().__init__()
        self.limit = 2**63
        """Bytes that may come out."""
        self.consumed = 0
        """Packed bytes read."""
        self.last = b""
        """What was handed out last."""
        self.free = free
        """Unpacked bytes that are not held against the stream; more may be granted."""
        self._file = file
        self._make = DECOMPRESSORS.get(kind)
        self._beginning = _BEGINNINGS.get(kind, b"")
        self._decompressor = self._make() if self._make else None
        self._max_ratio = max_ratio
        self._position = 0
        self._spare = b""
        self._returned = b""

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position if self._decompressor else self._file.tell()

    def exceeds(self, size: int) -> bool:
        """Whether `size` more bytes may be too many for what was read so far."""
        return self._make is not None and self._position + size > self.free + self._max_ratio * self.consumed

    def give_back(self, data: bytes) -> None:
        """Have `data`, which was read last, read once more."""
        if self._decompressor is None:
            self._file.seek(-len(data), io.SEEK_CUR)
        else:
            self._returned = data + self._returned
            self._position -= len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go forwards to `offset`; backwards is beyond a stream."""
        assert whence == io.SEEK_SET, "a packed stream only knows how far it is from its start"
        if self._decompressor is None:
            return self._file.seek(offset)
        if offset < self._position:
            raise ArchiveError("the archive asks to be read backwards")
        while self._position < offset and self.read(min(offset - self._position, 8 * CHUNK)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        """`size` unpacked bytes, or fewer at the end."""
        if not 0 <= size <= MAX_READ:
            raise ArchiveError("a header inside the archive is too large")
        if self._decompressor is None:
            self.last = self._file.read(size)
            return self.last
        parts, self._returned = [self._returned[:size]], self._returned[size:]
        self._position += len(parts[0])
        wanted = size - len(parts[0])
        while wanted:
            piece = self._piece(wanted)
            if not piece:
                break
            parts.append(piece)
            wanted -= len(piece)
        self.last = b"".join(parts)
        return self.last

    def read_all(self, size: int) -> bytes:
        """Exactly `size` bytes, however many.

        Raises
        ------
        EOFError
            The file ends before them.
        """
        parts: list[bytes] = []
        while size:
            part = self.read(min(size, 8 * CHUNK))
            if not part:
                raise EOFError("the archive ends inside an entry")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _piece(self, most: int) -> bytes:
        """Some bytes, at least one unless the stream is over."""
        assert self._decompressor is not None, "a plain file is read directly"
        assert self._make is not None, "a decompressor has a maker"
        while True:
            if self._decompressor.eof:
                # Several packed streams one after the other count as one.
                rest = self._decompressor.unused_data.lstrip(b"\0")
                while not rest:
                    more = self._feed()
                    if not more:
                        return b""
                    rest = more.lstrip(b"\0")
                if not rest.startswith(self._beginning[: len(rest)]):
                    raise NotAnArchive(
                        "there are other bytes after the end of the archive, which are no archive like it"
                    )
                self._decompressor, self._spare = self._make(), rest
            data = self._spare
            if not data and self._decompressor.needs_input:
                data = self._feed()
                if not data:
                    raise EOFError("the packed stream is cut off")
            self._spare = b""
            piece = self._decompressor.decompress(data, most)
            if piece:
                self._position += len(piece)
                self._check()
                return piece

    def _feed(self) -> bytes:
        data = self._file.read(CHUNK)
        self.consumed += len(data)
        return data

    def _check(self) -> None:
        if self._position > self.limit:
            raise ArchiveTooLarge(f"the archive unpacks to more than {self.limit} bytes")
        if self._position > self.free + self._max_ratio * self.consumed:
            raise suspicious("the archive", self.consumed, self._position)


def unpack_bzip2(packed: IO[bytes], most: int) -> bytes:
    """The first `most` bytes that a bzip2 stream unpacks to, or all if they are fewer; never more in memory.

    Raises
    ------
    EOFError, OSError
        The stream is cut off or damaged.
    """
    decompressor, length = bz2.BZ2Decompressor(), 0
    parts: list[bytes] = []
    while length < most and not decompressor.eof:
        data = packed.read(CHUNK) if decompressor.needs_input else b""
        if not data and decompressor.needs_input:
            raise EOFError("the packed stream is cut off")
        parts.append(decompressor.decompress(data, most - length))
        length += len(parts[-1])
    return b"".join(parts)
