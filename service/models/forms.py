"""Multipart forms, read part by part while they arrive."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from service.errors.exceptions import InvalidMultipart

_HEADERS = 32
"""The most headers that a part may have."""
_BOUNDARY_BYTES = 256
"""Which no parser takes more of."""
_HEADER_BYTES = 8192
"""The most bytes that the value of a part's header may have."""
_TEXT_BYTES = 2**20
"""The most bytes that a part of text may have."""
_PLAIN = frozenset({b"", b"7bit", b"8bit", b"binary", b"identity"})
"""Encodings of a part that leave its bytes as they are."""
_USUAL = re.compile(
    rb'\r\nContent-Disposition: form-data; name="([\w.-]{1,64})"(?:; filename="[^"\\;\x00-\x1f\x7f]{0,255}")?'
    rb"(?:\r\nContent-Type: [^\x00-\x1f\x7f]{0,255})?",
    re.IGNORECASE,
)
"""Headers of a part as nearly all clients write them."""
_CALLBACKS = ("part_begin", "part_data", "part_end", "header_field", "header_value", "header_end", "headers_finished")


class FormReader(ABC):
    """Reader of one form; `begin`, `data` and `end` are called for each part, in order."""

    def __init__(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._ended = False

    @abstractmethod
    def begin(self, name: str) -> None:
        """A part called so begins."""

    @abstractmethod
    def data(self, data: bytes) -> None:
        """Bytes of the part that has begun."""

    @abstractmethod
    def end(self) -> None:
        """The part ends."""

    async def received(self) -> None:
        """Called after each piece of the body; what may take long is done here."""
        return

    async def read(self, request: Request) -> None:
        """Read the form in `request`.

        Raises
        ------
        InvalidMultipart
            The body is not what its content type says, ends early, or has a part without bound.
        """
        _, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidMultipart("The content type names no boundary.")
        stream = request.stream()
        first, second = await anext(stream, b""), await anext(stream, b"")
        if not second and (parts := _usual_parts(first, boundary)) is not None:
            for name, content in parts:
                self.begin(name)
                if content:
                    self.data(content)
                self.end()
            await self.received()
            return
        callbacks = {f"on_{name}": getattr(self, f"_on_{name}") for name in _CALLBACKS} | {"on_end": self._on_end}
        try:
            parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]  # a TypedDict built by name
            for chunk in (first, second):
                parser.write(chunk)
                await self.received()
            async for chunk in stream:
                parser.write(chunk)
                await self.received()
            parser.finalize()
        except FormParserError as error:
            raise InvalidMultipart("The body is not multipart/form-data.") from error
        if not self._ended:
            raise InvalidMultipart("The body ends before its last boundary.")

    def _on_end(self) -> None:
        self._ended = True

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        if len(self._header_value) > _HEADER_BYTES:
            raise InvalidMultipart("A part's header is too long.")

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""
        if len(self._headers) > _HEADERS:
            raise InvalidMultipart(f"A part has more than {_HEADERS} headers.")

    def _on_headers_finished(self) -> None:
        for header in (b"content-transfer-encoding", b"content-encoding"):
            if (encoding := self._headers.get(header, b"").strip().lower()) not in _PLAIN:
                shown = encoding.decode("ascii", "replace")[:64]
                raise InvalidMultipart(f"A part is encoded as {shown}; send its bytes as they are.")
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self.begin(options.get(b"name", b"").decode("utf-8", "replace"))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.data(data[start:end])

    def _on_part_end(self) -> None:
        self.end()


def _usual_parts(body: bytes, boundary: bytes) -> list[tuple[str, bytes]] | None:
    """Names and contents of the parts of a form that came at once; None where anything about it is unusual.

    The parser takes five times as long, mostly for what it calls.
    """
    if len(boundary) > _BOUNDARY_BYTES:
        return None
    mark = b"--" + boundary
    pieces = body[len(mark) :].split(b"\r\n" + mark) if body.startswith(mark) else []
    if len(pieces) < 2 or pieces.pop() != b"--\r\n":
        return None
    found = []
    for piece in pieces:
        headers, blank, content = piece.partition(b"\r\n\r\n")
        if not blank or (part := _USUAL.fullmatch(headers)) is None:
            return None
        found.append((part[1].decode("ascii"), content))
    return found


class TextPart:
    """Part of a form that is text, of bounded length."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Bytes that arrived; raises InvalidMultipart."""
        self._data += data
        if len(self._data) > _TEXT_BYTES:
            raise InvalidMultipart(f"The part {self._name!r} has more than {_TEXT_BYTES} bytes.")

    def text(self) -> str:
        """All of it; raises InvalidMultipart."""
        try:
            return self._data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidMultipart(f"The part {self._name!r} is not UTF-8.") from error
