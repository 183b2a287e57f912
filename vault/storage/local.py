"""Object storage in a local folder, flushed to disk."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from vault.storage.backend import ObjectEntry
from vault.storage.paths import is_segment

_STAGING = "staging"
_ABANDONED_SECONDS = 24 * 3600
_CHUNK = 4 * 2**20
_TRIES = 100
_FLUSHED_FOLDERS = 1024
"""Folders known to be flushed; most belong to a job and are not written again once it is over. One that drops out of
the list is flushed once more."""


class LocalBackend:
    """A `vault.storage.backend.StorageBackend` below the folder `root`, which is created if missing.

    An object is on the disk before it has its name: the bytes are written to a staging file, flushed, and then linked
    to the final name; the link fails if that exists. All calls are plain system calls in the calling thread: a library
    with its own thread pool adds a thread at each burst, and a service keeps them for ever.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # Text from here on: `pathlib` interns every part of a path. New names would keep going through the table of
        # interned strings, which is one day rebuilt several megabytes larger.
        self._root = str(root)
        self._flushed: OrderedDict[str, int] = OrderedDict()
        """Inodes of the folders whose names are known to be on the disk; a folder may be removed and made anew."""
        self._lock = threading.Lock()
        self._remove_abandoned()

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        """Write an object from bytes or from a file; raises FileExistsError."""
        with suppress(FileExistsError):
            os.mkdir(self._at(_STAGING))
        staged = self._at(f"{_STAGING}/{uuid.uuid4().hex}")
        try:
            if isinstance(data, Path):
                shutil.copyfile(data, staged)
            else:
                with open(staged, "wb") as file:
                    file.write(data)
            _flush(staged)
            self._link(staged, self._at(path), overwrite)
        except BaseException:
            with suppress(OSError):
                os.unlink(staged)
            raise
        with suppress(FileNotFoundError):  # it was deleted since, and the folder that named it as well
            self._flush_names(path)

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        with _no_file_is_missing(), open(self._at(path), "rb") as file:
            return file.read()

    def stream(self, path: str) -> Iterator[bytes]:
        """The bytes of an object, in pieces of a few MiB."""
        with _no_file_is_missing(), open(self._at(path), "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def stat(self, path: str) -> ObjectEntry:
        """Size and age of an object."""
        with _no_file_is_missing():
            found = os.stat(self._at(path))
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(path)
        return ObjectEntry(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def remove(self, path: str) -> None:
        """Remove an object; its folder stays, see `remove_empty`."""
        with _no_file_is_missing():
            os.unlink(self._at(path))
            self._flush_names(path)

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        """All paths below a folder that are greater than `after`, in no order."""
        found = (path for path, _ in self._walk(prefix))
        return found if after is None else (path for path in found if path > after)

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """Everything below a folder."""
        for path, entry in self._walk(prefix):
            with suppress(FileNotFoundError):  # it was removed since
                found = entry.stat()
                yield ObjectEntry(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def folders(self, prefix: str | None) -> list[str]:
        """Names of the folders right below `prefix`, also of empty ones."""
        return [entry.name for entry in _scan(self._at(prefix) if prefix else self._root) if entry.is_dir()]

    def remove_empty(self, prefix: str) -> None:
        """Remove the empty folders below a folder, and the folder itself."""
        for folder, _, _ in os.walk(self._at(prefix), topdown=False):
            with suppress(OSError):
                os.rmdir(folder)

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path)

    def _link(self, staged: str, target: str, overwrite: bool) -> None:
        """Give a staged file its final name, in a folder that may be missing or be removed at the same time."""
        for _ in range(_TRIES):
            try:
                if overwrite:
                    os.replace(staged, target)
                else:
                    os.link(staged, target)
                    os.unlink(staged)
                return
            except FileNotFoundError:
                self._forget(os.path.dirname(target))
                # A folder that is made or removed at this very moment is tried again.
                with suppress(FileNotFoundError, FileExistsError):
                    os.makedirs(os.path.dirname(target), exist_ok=True)
        raise OSError(errno.EIO, "somebody removes what is written")

    def _forget(self, folder: str) -> None:
        """Drop removed folders: one that is made anew may get the same inode, and its name is not flushed yet."""
        with self._lock:
            while folder != self._root and not os.path.isdir(folder):
                self._flushed.pop(folder, None)
                folder = os.path.dirname(folder)

    def _flush_names(self, path: str) -> None:
        """Flush the folder of the object `path`, and the folders above it that are new."""
        folder = os.path.dirname(self._at(path))
        _flush(folder)
        while folder != self._root:
            inode = os.stat(folder).st_ino
            with self._lock:
                if self._flushed.get(folder) == inode:
                    self._flushed.move_to_end(folder)
                    return
            _flush(os.path.dirname(folder))
            with self._lock:
                self._flushed[folder] = inode
                while len(self._flushed) > _FLUSHED_FOLDERS:
                    self._flushed.popitem(last=False)
            folder = os.path.dirname(folder)

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """The files below a folder whose names are valid, with their paths."""
        folders = [prefix]
        while folders:
            folder = folders.pop()
            for entry in _scan(self._at(folder)):
                path = f"{folder}/{entry.name}"
                if entry.is_dir():
                    folders.append(path)
                else:
                    yield path, entry

    def _remove_abandoned(self) -> None:
        """Remove staging files of writers that were killed before the link."""
        for entry in _scan(self._at(_STAGING)):
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > _ABANDONED_SECONDS:
                    os.unlink(entry.path)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder whose names are valid; none if it is missing or no folder."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return [entry for entry in found if is_segment(entry.name)]
    return []


@contextmanager
def _no_file_is_missing() -> Iterator[None]:
    """Inside, a folder in the place of a file counts as a missing file.

    A file in the place of a folder remains a failure: anything may have been below it.
    """
    try:
        yield
    except IsADirectoryError as error:
        raise FileNotFoundError(error.filename) from error


def _flush(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
