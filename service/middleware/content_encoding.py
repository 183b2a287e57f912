"""Header `Content-Encoding`: packed bodies, unpacked piece by piece while they arrive."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from anyio.lowlevel import checkpoint
from starlette.types import Message

from service.errors.exceptions import InvalidContentEncoding, UnsupportedContentEncoding

TAKEN = "gzip, deflate, identity"
"""What is unpacked, as `Accept-Encoding` says it."""
_PIECE = 256 * 2**10
"""The most bytes that are unpacked at once."""
_SLICE = 16 * 2**10
"""The most packed bytes that are looked at at once."""
_MOST_LAYERS = 3
"""How often a body may be packed."""
_LONGEST_NAME = 64
"""Characters of an encoding's name that an answer repeats."""

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

_GZIP_MAGIC = b"\x1f\x8b"
_FOLLOWED = "Something follows the end of the packed body."


def encodings(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
    """The names in `Content-Encoding`, in the order in which they were applied, without `identity`."""
    values = [value for name, value in headers if name == b"content-encoding"]
    if not values:
        return ()
    names = (name.strip().lower() for name in b",".join(values).decode("latin-1").split(","))
    return tuple(name for name in names if name not in ("", "identity"))


class UnpackedBody:
    """Body of a request as it was before it was packed; gives messages as `receive` does.

    Nothing is unpacked before it is asked for, and no more than a piece at once.

    Parameters
    ----------
    receive
        Gives the packed body.
    names
        `encodings` of the request.
    """

    def __init__(self, receive: Callable[[], Awaitable[Message]], names: Sequence[str]) -> None:
        self._receive = receive
        self._names = names
        self._layers: list[_Layer] | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._all_received = False
        self._over = False

    async def receive(self) -> Message:
        """The next piece.

        Raises
        ------
        UnsupportedContentEncoding
            There is a body, packed in a way that is not unpacked here.
        InvalidContentEncoding
            It is not packed as the header says, or is damaged or cut off.
        """
        while not self._over:
            try:
                piece = next(self._pieces, None)
                if piece is None and self._all_received:
                    self._over = True
                    for layer in self._layers or ():
                        layer.end()
                    return {"type": "http.request", "body": b"", "more_body": False}
            except zlib.error as error:
                raise InvalidContentEncoding(f"The body is not packed as {', '.join(self._names)}.") from error
            if piece is not None:
                await checkpoint()  # unpacking takes time, in which others want their turn
                return {"type": "http.request", "body": piece, "more_body": True}
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            self._all_received = not message.get("more_body", False)
            await checkpoint()
            if data := message.get("body", b""):
                if self._layers is None:
                    self._layers = _layers(self._names)
                self._pieces = _unpacked(self._layers, data)
        return await self._receive()


def _layers(names: Sequence[str]) -> list[_Layer]:
    """What unpacks a body, the outermost first."""
    for name in names:
        if name not in ("gzip", "x-gzip", "deflate"):
            raise UnsupportedContentEncoding(
                f"Bodies are not unpacked from the content encoding {name[:_LONGEST_NAME]!r}; taken are {TAKEN}.", TAKEN
            )
    if len(names) > _MOST_LAYERS:
        raise UnsupportedContentEncoding(f"The body is packed more than {_MOST_LAYERS} times.", TAKEN)
    return [_Layer(name) for name in reversed(names)]


def _unpacked(layers: Sequence[_Layer], data: bytes) -> Iterator[bytes]:
    """What comes out of all layers for `data`."""
    if not layers:
        yield data
        return
    for piece in layers[0].pieces(data):
        yield from _unpacked(layers[1:], piece)


class _Layer:
    """One encoding of a body: gzip, or deflate with its zlib header or, as some clients send it, without."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = b""
        self._after = b""
        self._stream = zlib.decompressobj(_GZIP) if name != "deflate" else None

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What comes out for `data`; raises zlib.error or InvalidContentEncoding."""
        if self._stream is None:
            self._begun += data
            if len(self._begun) < 2:
                return
            data, self._begun = self._begun, b""
            headed = data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB if headed else _RAW)
        # In slices, since what a stream leaves over is copied each time.
        for start in range(0, len(data), _SLICE):
            yield from self._slice(data[start : start + _SLICE])

    def _slice(self, data: bytes) -> Iterator[bytes]:
        assert self._stream is not None, "made with the first bytes"
        while True:
            if self._stream.eof:
                self._after += data
                if len(self._after) < (1 if self._name == "deflate" else len(_GZIP_MAGIC)):
                    return
                if self._name == "deflate" or not self._after.startswith(_GZIP_MAGIC):
                    raise InvalidContentEncoding(_FOLLOWED)
                data, self._after = self._after, b""
                self._stream = zlib.decompressobj(_GZIP)  # gzip may have several members in a row
            piece = self._stream.decompress(data, _PIECE)
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if piece:
                yield piece
            # What is left inside the stream comes out with no more data, as long as pieces are full.
            if not data and not self._stream.eof and len(piece) < _PIECE:
                return

    def end(self) -> None:
        """Return if the stream is complete; raises InvalidContentEncoding."""
        if self._after:
            raise InvalidContentEncoding(_FOLLOWED)
        if self._stream is None or not self._stream.eof:
            raise InvalidContentEncoding(f"The body ends before what is packed as {self._name} does.")
