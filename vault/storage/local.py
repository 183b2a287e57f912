"""A local folder as storage that keeps what it took, even when the power goes."""

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
_LEFT_OVER_SECONDS = 24 * 3600
_CHUNK = 4 * 2**20
_TRIES = 100
_REMEMBERED = 1024
"""Folders; most are a job's, and of no interest once that is over. One that is forgotten is flushed once more."""


class LocalBackend:
    """A `vault.storage.backend.StorageBackend` below `root`, which is made when it is not there.

    An object is on the disk before it has its name: the bytes are written under a name of their own, flushed, and then
    linked to the name they are to have; the link fails when that exists. All is plain system calls in the thread that
    asks. (A library with a pool of its own threads adds one at each burst, and a service keeps them for ever.)
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        # Text from here on: `pathlib` interns every part of a path, and a table that ever new names go through is one
        # day made anew, several megabytes larger.
        self._root = str(root)
        self._flushed: OrderedDict[str, int] = OrderedDict()
        """The inodes of folders whose own names are known to be on the disk: one may be removed and made anew."""
        self._lock = threading.Lock()
        self._remove_left_overs()

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
            self._name(staged, self._at(path), overwrite)
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
        """The same in pieces of a few MiB."""
        with _no_file_is_missing(), open(self._at(path), "rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def look(self, path: str) -> ObjectEntry:
        """How large an object is, and how old."""
        with _no_file_is_missing():
            found = os.stat(self._at(path))
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(path)
        return ObjectEntry(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def remove(self, path: str) -> None:
        """Remove an object; the folder that named it stays, see `remove_empty`."""
        with _no_file_is_missing():
            os.unlink(self._at(path))
            self._flush_names(path)

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        """Paths below a folder, in no order: all of them, but for those not greater than `after`."""
        found = (path for path, _ in self._walk(prefix))
        return found if after is None else (path for path in found if path > after)

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """Everything below a folder."""
        for path, entry in self._walk(prefix):
            with suppress(FileNotFoundError):  # it was removed since
                found = entry.stat()
                yield ObjectEntry(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def folders(self, prefix: str | None) -> list[str]:
        """Names of the folders right below `prefix`, also of those that everything was deleted from."""
        return [entry.name for entry in _scan(self._at(prefix) if prefix else self._root) if entry.is_dir()]

    def remove_empty(self, prefix: str) -> None:
        """Remove the empty folders below a folder, and itself."""
        for folder, _, _ in os.walk(self._at(prefix), topdown=False):
            with suppress(OSError):
                os.rmdir(folder)

    def _at(self, path: str) -> str:
        return os.path.join(self._root, path)

    def _name(self, staged: str, target: str, overwrite: bool) -> None:
        """Give a file the name it is to have, in a folder that may have to be made, or may just be removed."""
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
                # One that is made or removed in this very moment is looked at again.
                with suppress(FileNotFoundError, FileExistsError):
                    os.makedirs(os.path.dirname(target), exist_ok=True)
        raise OSError(errno.EIO, "somebody removes what is written")

    def _forget(self, folder: str) -> None:
        """A folder that is made anew may get the very inode of the one before, and its name is yet to be flushed."""
        with self._lock:
            while folder != self._root and not os.path.isdir(folder):
                self._flushed.pop(folder, None)
                folder = os.path.dirname(folder)

    def _flush_names(self, path: str) -> None:
        """Flush the folder that names the object `path`, and those above it when they are new."""
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
                while len(self._flushed) > _REMEMBERED:
                    self._flushed.popitem(last=False)
            folder = os.path.dirname(folder)

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """The files below a folder that can be objects, by path."""
        folders = [prefix]
        while folders:
            folder = folders.pop()
            for entry in _scan(self._at(folder)):
                path = f"{folder}/{entry.name}"
                if entry.is_dir():
                    folders.append(path)
                else:
                    yield path, entry

    def _remove_left_overs(self) -> None:
        """Files of writers that were killed before they could give them their names."""
        for entry in _scan(self._at(_STAGING)):
            with suppress(FileNotFoundError):
                if time.time() - entry.stat().st_mtime > _LEFT_OVER_SECONDS:
                    os.unlink(entry.path)


def _scan(folder: str) -> list[os.DirEntry[str]]:
    """What a folder holds that can be an object or a folder of some; nothing when it is not there, or no folder."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        return [entry for entry in found if is_segment(entry.name)]
    return []


@contextmanager
def _no_file_is_missing() -> Iterator[None]:
    """Inside, a folder where a file is asked for is a file that is not there.

    A file where a folder should be is a failure: below it may have been everything.
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
