"""Protocol of a storage backend: the operations that a local folder and S3 have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol


class ObjectEntry(NamedTuple):
    """Path, size and age of an object, which a backend knows without reading it."""

    path: str
    size: int
    """Bytes."""
    written: datetime


class StorageBackend(Protocol):
    """Bytes by path; safe to use from any thread.

    A missing object raises FileNotFoundError. Every other failure is an OSError, or an error of the library behind it.
    """

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        """Write an object atomically from bytes or from a file; it is durable when this returns.

        Raises
        ------
        FileExistsError
            It exists and is not to be overwritten; of racing writers one succeeds.
        """

    def read(self, path: str) -> bytes:
        """The bytes of an object."""

    def stream(self, path: str) -> Iterator[bytes | memoryview]:
        """The bytes of an object, in pieces of a few MiB."""

    def stat(self, path: str) -> ObjectEntry:
        """Size and age of an object."""

    def remove(self, path: str) -> None:
        """Remove an object; a missing one is ignored, or raises FileNotFoundError."""

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        """Paths below the folder `prefix` after the path `after`, at any depth and in any order.

        A backend may leave out all but the `limit` paths that sort first.
        """

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """Everything below the folder `prefix`, at any depth and in any order."""

    def folders(self, prefix: str | None) -> list[str]:
        """Names of the folders right below `prefix`, or right at the top."""

    def remove_empty(self, prefix: str) -> None:
        """Remove the empty folders below a folder, and the folder itself, once nothing is written there any more."""
