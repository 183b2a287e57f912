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
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors.exceptions import InvalidMultipart, InvalidRequest, OutOfDiskSpace

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FIELD_BYTES = 2**20
"""The most that a text part may have."""
_HEADERS = 32
"""The most headers that a part may have."""
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


class _Collector:
    """Callbacks of the multipart parser; bytes of `data` gather in `pending` until the caller writes them."""

    def __init__(self, upload: Upload) -> None:
        self.upload = upload
        self.pending = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._part_name = ""
        self._field = bytearray()

    def on_part_begin(self) -> None:
        self._headers = {}
        self._field = bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        if len(self._header_value) > 8192:
            raise InvalidMultipart("A part's header is too long.")

    def on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""
        if len(self._headers) > _HEADERS:
            raise InvalidMultipart(f"A part has more than {_HEADERS} headers.")

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._part_name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._part_name == "data":
            if self.upload.has_data:
                raise InvalidMultipart("More than one part is called data.")
            self.upload.has_data = True
        elif self._part_name not in _TEXT_PARTS:
            known = ", ".join(sorted((*_TEXT_PARTS, "data")))
            raise InvalidRequest(f"No part is to be called {self._part_name[:64]!r}; known here: {known}.")
        elif self._part_name in self.upload.fields:
            raise InvalidRequest(f"More than one part is called {self._part_name}.")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part_name == "data":
            self.pending += data[start:end]
            return
        self._field += data[start:end]
        if len(self._field) > _FIELD_BYTES:
            raise InvalidMultipart(f"The part {self._part_name!r} has more than {_FIELD_BYTES} bytes.")

    def on_part_end(self) -> None:
        if self._part_name == "data":
            return
        try:
            self.upload.fields[self._part_name] = self._field.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidMultipart(f"The part {self._part_name!r} is not UTF-8.") from error


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
    _, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if not boundary:
        raise InvalidMultipart("The content type names no boundary.")
    with _refused_when_full(), tempfile.NamedTemporaryFile(prefix="engram-upload-") as file:
        upload = Upload(Path(file.name))
        await _parse(request, upload, boundary, file.file)
        yield upload


@contextmanager
def _refused_when_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise OutOfDiskSpace("There is no room for the upload at present.") from error
        raise


async def _parse(request: Request, upload: Upload, boundary: bytes, file: IO[bytes]) -> None:
    collector = _Collector(upload)
    names = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "headers_finished")
    ended = False

    def on_end() -> None:
        nonlocal ended
        ended = True

    callbacks = {f"on_{name}": getattr(collector, f"on_{name}") for name in names} | {"on_end": on_end}
    parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict built by name
    try:
        async for chunk in request.stream():
            parser.write(chunk)
            if len(collector.pending) >= _WRITE_BYTES:
                await _write(upload, collector, file)
        parser.finalize()
    except FormParserError as error:
        raise InvalidMultipart("The body is not multipart/form-data.") from error
    if not ended:
        raise InvalidMultipart("The body ends before its last boundary.")
    await _write(upload, collector, file)
    await to_thread.run_sync(file.flush)


async def _write(upload: Upload, collector: _Collector, file: IO[bytes]) -> None:
    data, collector.pending = bytes(collector.pending), bytearray()
    upload.size += len(data)

    def keep() -> None:
        file.write(data)
        upload.digest.update(data)

    await to_thread.run_sync(keep)
