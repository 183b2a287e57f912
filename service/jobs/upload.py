"""Multipart upload of training data, written to a temporary file while it arrives."""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
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
_TEXT_PARTS = frozenset({"name", "options"})


class Upload:
    """A received upload: small text parts by name, and the `data` part as a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fields: dict[str, str] = {}
        self.has_data = False
        self.size = 0
        self.digest = hashlib.sha256()
        """Of the `data` part, made while it arrives."""


class _Collector(FormReader):
    """Reader of an upload; bytes of `data` gather in `pending` until they are written to `file`."""

    def __init__(self, upload: Upload, file: IO[bytes]) -> None:
        super().__init__()
        self._upload = upload
        self._file = file
        self._pending = bytearray()
        self._name = ""
        self._text: TextPart | None = None

    def begin(self, name: str) -> None:
        self._name = name
        self._text = None
        if name == "data":
            if self._upload.has_data:
                raise InvalidMultipart("More than one part is called data.")
            self._upload.has_data = True
        elif name not in _TEXT_PARTS:
            known = ", ".join(sorted((*_TEXT_PARTS, "data")))
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
async def receive(request: Request) -> AsyncIterator[Upload]:
    """The upload in `request`, its file deleted at the end.

    Raises
    ------
    InvalidMultipart
        The body is not what its content type says, ends early, or has a part without bound.
    InvalidRequest
        There are two names, two parts with options, or a part that is called otherwise.
    OutOfDiskSpace
        The disk for temporary files is full.
    """
    with _refused_when_full(), tempfile.NamedTemporaryFile(prefix="engram-upload-") as file:
        upload = Upload(Path(file.name))
        collector = _Collector(upload, file.file)
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
