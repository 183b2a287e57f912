"""Table of what processes note about their connections, for whoever ends what one has left."""

from __future__ import annotations

import enum
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_ENTRY = struct.Struct("<QQQQ")  # asked, read, written, whole

PLACES = 16384


class Asked(enum.IntEnum):
    """What a connection's client waits for."""

    NOTHING = 0
    ANSWER = 1
    PROTOCOL_ANSWER = 2
    """To a request of the Open Inference Protocol, whose errors have a form of their own."""


@dataclass(frozen=True)
class ConnectionState:
    """What a process has noted about a connection."""

    asked: Asked = Asked.NOTHING
    read: int = 0
    """Bytes that came from the client, when this was noted."""
    written: int = 0
    """Bytes that were sent to it by then."""
    whole: int = 0
    """Bytes that will have been sent to it once the answer is whole that is sent now; 0 where none is."""


class ConnectionStates:
    """A state for each place of a table that processes share: one writes it, another reads it once the first is gone.

    Parameters
    ----------
    path
        The file that all of them map into their memory.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._table = mmap.mmap(file.fileno(), 0)

    @classmethod
    def create(cls, path: Path, places: int = PLACES) -> Self:
        """A table whose file is not there yet; raises OSError."""
        with path.open("xb") as file:
            file.truncate(places * _ENTRY.size)
        return cls(path)

    def __len__(self) -> int:
        return len(self._table) // _ENTRY.size

    def note(self, place: int, asked: Asked, read: int, written: int, whole: int = 0) -> None:
        """Note the state of a connection; it takes part of a microsecond."""
        _ENTRY.pack_into(self._table, place * _ENTRY.size, asked, read, written, whole)

    def at(self, place: int) -> ConnectionState:
        """What was noted last."""
        asked, read, written, whole = _ENTRY.unpack_from(self._table, place * _ENTRY.size)
        return ConnectionState(Asked(asked), read, written, whole)
