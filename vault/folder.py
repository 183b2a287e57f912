"""A local folder as object storage that keeps what it took, even when the power goes."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import obstore
from obstore.store import LocalStore

_STAGING = "staging"
_LEFT_OVER_SECONDS = 24 * 3600
_REMEMBERED = 1024
"""Folders; most are a job's, and of no interest once that is over. One that is forgotten is flushed once more."""


class Folder:
    """Writes below `root` so that an object is on the disk before it has its name.

    `LocalStore` alone leaves flushing to the kernel: after a power cut a commit could be there and be empty. Here the
    bytes are written under a name of their own, flushed, and then linked to the name they are to have; the link fails
    when that exists.
    """

    def __init__(self, root: Path, store: LocalStore) -> None:
        self._root = root
        self._store = store
        self._flushed: OrderedDict[str, int] = OrderedDict()
        """The inodes of folders whose own names are known to be on the disk: one may be removed and made anew."""
        self._lock = threading.Lock()
        self._remove_left_overs()

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        """Write an object from bytes or from a file.

        Raises
        ------
        obstore.exceptions.AlreadyExistsError
            It is there and is not to be overwritten.
        """
        staged = f"{_STAGING}/{uuid.uuid4().hex}"
        try:
            obstore.put(self._store, staged, data)
            _flush(self._root / staged)
            obstore.rename(self._store, staged, path, overwrite=overwrite)
        except BaseException:
            with suppress(OSError):
                os.unlink(self._root / staged)
            raise
        self.flush_names(path)

    def flush_names(self, path: str) -> None:
        """Flush the folder that names the object `path`, and those above it when they are new."""
        folder = (self._root / path).parent
        _flush(folder)
        while folder != self._root:
            inode = os.stat(folder).st_ino
            with self._lock:
                if self._flushed.get(str(folder)) == inode:
                    self._flushed.move_to_end(str(folder))
                    return
            _flush(folder.parent)
            with self._lock:
                self._flushed[str(folder)] = inode
                while len(self._flushed) > _REMEMBERED:
                    self._flushed.popitem(last=False)
            folder = folder.parent

    def remove_empty(self, path: str) -> None:
        """Remove the empty folders below a folder, and itself; for those that nothing is ever written to again."""
        for folder, _, _ in os.walk(self._root / path, topdown=False):
            with suppress(OSError):
                os.rmdir(folder)

    def _remove_left_overs(self) -> None:
        """Files of writers that were killed before they could give them their names."""
        staging = self._root / _STAGING
        with suppress(FileNotFoundError):
            for entry in list(os.scandir(staging)):
                with suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > _LEFT_OVER_SECONDS:
                        os.unlink(entry.path)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
