"""Storage backend that counts the bytes that pass through it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from vault.storage.backend import ObjectEntry, StorageBackend


class CountingBackend:
    """A storage backend around another one, with the bytes read and written by top-level folder of the store.

    A blob that is read twice counts twice.
    """

    def __init__(self, inner: StorageBackend) -> None:
        self._inner = inner
        self.bytes_read: Counter[str] = Counter()
        self.bytes_written: Counter[str] = Counter()

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        self._inner.write(path, data, overwrite=overwrite)
        self.bytes_written[_folder(path)] += data.stat().st_size if isinstance(data, Path) else len(data)

    def read(self, path: str) -> bytes:
        data = self._inner.read(path)
        self.bytes_read[_folder(path)] += len(data)
        return data

    def stream(self, path: str) -> Iterator[bytes | memoryview]:
        for piece in self._inner.stream(path):
            self.bytes_read[_folder(path)] += len(piece)
            yield piece

    def stat(self, path: str) -> ObjectEntry:
        return self._inner.stat(path)

    def remove(self, path: str) -> None:
        self._inner.remove(path)

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        return self._inner.paths(prefix, after, limit)

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        return self._inner.entries(prefix)

    def folders(self, prefix: str | None) -> list[str]:
        return self._inner.folders(prefix)

    def remove_empty(self, prefix: str) -> None:
        self._inner.remove_empty(prefix)


def _folder(path: str) -> str:
    return path.partition("/")[0]
