"""What objects are kept in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol


class ObjectEntry(NamedTuple):
    """What a storage tells of an object without reading it."""

    path: str
    size: int
    """Bytes."""
    written: datetime


class StorageBackend(Protocol):
    """Bytes by path, with the few operations that S3 and a local folder have in common; safe from any thread.

    What is not there raises FileNotFoundError. Every other failure is an OSError, or an error of the library behind it.
    """

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        """Write an object, at once and whole, from bytes or from a file; it stays when this returns.

        Raises
        ------
        FileExistsError
            It is there and is not to be overwritten; of racing writers one succeeds.
        """

    def read(self, path: str) -> bytes:
        """The bytes of an object."""

    def stream(self, path: str) -> Iterator[bytes | memoryview]:
        """The same in pieces of a few MiB."""

    def look(self, path: str) -> ObjectEntry:
        """How large an object is, and how old."""

    def remove(self, path: str) -> None:
        """Remove an object; one that is not there is removed already, or raises FileNotFoundError."""

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        """Paths below the folder `prefix` after the path `after`, at any depth and in any order.

        Of those no more have to come than the `limit` that sort first.
        """

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """Everything below the folder `prefix`, at any depth and in any order."""

    def folders(self, prefix: str | None) -> list[str]:
        """Names of the folders right below `prefix`, or right at the top."""

    def remove_empty(self, prefix: str) -> None:
        """Remove the empty folders below a folder, and itself; for those that nothing is ever written to again."""
