"""Multipart upload of a file, written to a temporary one while it arrives, beside small texts."""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from anyio import to_thread
from starlette.requests import Request

from service.errors.exceptions import InvalidMultipart, InvalidRequest, OutOfDiskSpace
from service.models.forms import FormReader, TextPart

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRITE_BYTES = 2**20
"""How much is gathered before it is written to disk."""


class Upload:
    """A received upload: small text parts by name, and one part as a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, str] = {}
        self.has_file = False
        self.size = 0
        self.digest = hashlib.sha256()
        """Of the file, made while it arrives."""


class _Collector(FormReader):
    """Reader of an upload; bytes of the part `file_part` gather in `pending` until they are written to `file`."""

    def __init__(self, upload: Upload, file: IO[bytes], file_part: str, text_parts: Collection[str]) -> None:
        super().__init__()
        self._file_part = file_part
        self._text_parts = text_parts
        self._upload = upload
        self._file = file
        self._pending = bytearray()
        self._name = ""
        self._text: TextPart | None = None

    def begin(self, name: str) -> None:
        self._name = name
        self._text = None
        if name == self._file_part:
            if self._upload.has_file:
                raise InvalidMultipart(f"More than one part is called {name}.")
            self._upload.has_file = True
        elif name not in self._text_parts:
            known = ", ".join(sorted((*self._text_parts, self._file_part)))
            raise InvalidRequest(f"No part is to be called {name[:64]!r}; known here: {known}.")
        elif name in self._upload.fields:
            raise InvalidRequest(f"More than one part is called {name}.")
        else:
            self._text = TextPart(name)

    def data(self, data: bytes) -> None:
        if self._text is None:
            self._pending += data
        else:
            self._text.add(data)

    def end(self) -> None:
        if self._text is not None:
            self._upload.fields[self._name] = self._text.text()

    async def received(self) -> None:
        if len(self._pending) >= _WRITE_BYTES:
            await self.write()

    async def write(self) -> None:
        """Write what has gathered."""
        data, self._pending = bytes(self._pending), bytearray()
        self._upload.size += len(data)

        def keep() -> None:
            self._file.write(data)
            self._upload.digest.update(data)

        await to_thread.run_sync(keep)


@asynccontextmanager
async def receive(request: Request, file_part: str, text_parts: Collection[str]) -> AsyncIterator[Upload]:
    """The upload in `request`, its file deleted at the end.

    Parameters
    ----------
    file_part
        Name of the part that is the file.
    text_parts
        Names of all other parts that there may be.

    Raises
    ------
    InvalidMultipart
        The body is not what its content type says, ends early, or has a part without bound.
    InvalidRequest
        There are two texts of one name, or a part that is called otherwise.
    OutOfDiskSpace
        The disk for temporary files is full.
    """
    with _refused_when_full(), tempfile.NamedTemporaryFile(prefix="engram-upload-") as file:
        upload = Upload(Path(file.name))
        collector = _Collector(upload, file.file, file_part, text_parts)
        await collector.read(request)
        await collector.write()
        await to_thread.run_sync(file.flush)
        yield upload


@contextmanager
def _refused_when_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise OutOfDiskSpace("There is no room for the upload at present.") from error
        raise
