"""ObjectStore: write-once objects, content-addressed blobs, uploads and sealed JSON documents."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
import uuid
from builtins import list as List
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar

from obstore.exceptions import BaseError

from telemetry.metrics import count_failure
from vault.errors import AlreadyExists, Damaged, NotFound, StoreUnavailable, Unreadable, VaultError
from vault.settings import VaultSettings
from vault.storage.backend import ObjectEntry, StorageBackend
from vault.storage.documents import FIRST_FORMAT, seal, unseal
from vault.storage.local import LocalBackend
from vault.storage.paths import check_path
from vault.storage.s3 import S3Backend

Answer = TypeVar("Answer")
Listed = TypeVar("Listed")

_CHUNK = 4 * 2**20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRESH = timedelta(hours=1)
"""Age below which a blob that exists need not be written anew."""

CONDEMNED = "condemned"
"""Folder of the marks of blobs that a sweep is about to remove."""
STALE_MARK = timedelta(minutes=10)
"""Age of a mark whose sweep counts as dead."""


class ObjectStore:
    """Objects by path, such as `jobs/0192.../request.json`; safe to use from any thread.

    Whatever a call has written is durable when it returns: in a folder, files and the folders that name them are
    flushed to disk, and a file gets its name only after that. Segments of a path are letters, digits, `.`, `_` and `-`,
    and begin with a letter or digit; anything else raises InvalidPath. Every call raises StoreUnavailable when the
    storage cannot be reached.
    """

    def __init__(self, storage: StorageBackend, retry_seconds: float = 0) -> None:
        self._storage = storage
        self._retry_seconds = retry_seconds
        """How long a failed read is retried, beyond the retries of the storage itself."""
        self.before_creating: Callable[[], None] | None = None
        """Called before anything is created; what it raises keeps it from being created (`vault.storage.probe`)."""

    @classmethod
    def connect(cls, settings: VaultSettings) -> ObjectStore:
        """The store that `settings.store_url` names; a local folder is created if missing."""
        root = settings.store_folder
        with _store_errors("the store"):
            if root is not None:
                return cls(LocalBackend(root))
            return cls(S3Backend.connect(settings), retry_seconds=settings.store_timeout_seconds)

    def unguarded(self) -> ObjectStore:
        """The same store without what is called before something is created."""
        return ObjectStore(self._storage, self._retry_seconds)

    def ping(self) -> None:
        """Check that the storage answers; raises StoreUnavailable."""
        try:
            self.list_top()
        except NotFound as error:
            raise StoreUnavailable(f"The bucket cannot be listed: {error}") from error

    def put_new(self, path: str, data: bytes | Path) -> None:
        """Create an object from bytes or from a file; of any number of racing writers one succeeds.

        Raises
        ------
        AlreadyExists
            An object of that path exists, whatever it holds.
        """
        check_path(path)
        if self.before_creating is not None:
            self.before_creating()
        with _store_errors(path):
            self._storage.write(path, data, overwrite=False)

    def put(self, path: str, data: bytes | Path) -> None:
        """Create or replace an object atomically."""
        check_path(path)
        with _store_errors(path):
            self._storage.write(path, data, overwrite=True)

    def get(self, path: str) -> bytes:
        """The bytes of an object; raises NotFound."""
        check_path(path)
        return self._retry(path, lambda: self._storage.read(path))

    def exists(self, path: str) -> bool:
        """Whether there is an object of that path."""
        return self.written_at(path) is not None

    def written_at(self, path: str) -> datetime | None:
        """When an object was written; None when there is none."""
        check_path(path)
        try:
            return self._retry(path, lambda: self._storage.stat(path).written)
        except NotFound:
            return None

    def size(self, path: str) -> int:
        """Bytes of an object; raises NotFound."""
        check_path(path)
        return self._retry(path, lambda: self._storage.stat(path).size)

    def delete(self, path: str) -> None:
        """Remove an object; a missing one is ignored."""
        check_path(path)
        with suppress(NotFound), _store_errors(path):
            self._storage.remove(path)

    def list(self, prefix: str, after: str | None = None, limit: int | None = None) -> List[str]:
        """Paths below the folder `prefix`, at any depth, sorted; those greater than the path `after`, `limit` at most.

        From S3 no more is fetched than the limit asks for.
        """
        check_path(prefix)
        return sorted(
            self._retry(prefix, lambda: _checked_listing(prefix, self._storage.paths(prefix, after, limit), str))
        )[:limit]

    def written(self, prefix: str) -> dict[str, datetime]:
        """Time at which each object below the folder `prefix` was written, by path."""
        return {entry.path: entry.written for entry in self._entries(prefix)}

    def remove_folder(self, prefix: str) -> None:
        """Remove the empty folders that a local store keeps of deleted objects: those below `prefix`, and itself."""
        check_path(prefix)
        self._storage.remove_empty(prefix)

    def sizes(self, prefix: str) -> dict[str, int]:
        """Bytes of every object below the folder `prefix`, by path."""
        return {entry.path: entry.size for entry in self._entries(prefix)}

    def list_top(self) -> List[str]:
        """Names of the top-level folders, sorted."""
        with _store_errors("the store"):
            return sorted(self._storage.folders(None))

    def list_folders(self, prefix: str, after: str | None = None, limit: int | None = None) -> List[str]:
        """Names of the folders right below `prefix`, sorted; those greater than the name `after`, `limit` at most.

        A local store also lists empty folders.
        """
        check_path(prefix)
        names = sorted(self._retry(prefix, lambda: self._storage.folders(prefix)))
        return [name for name in names if after is None or name > after][:limit]

    def create_json(self, path: str, document: Mapping[str, Any], version: int = FIRST_FORMAT) -> None:
        """Create an object from a JSON document, sealed, with a field `writer` that is unique to this call.

        By that field a writer whose answer got lost, and who finds the object on the retry, recognises it as its own.

        Raises
        ------
        AlreadyExists
            Another call created it.
        """
        writer = uuid.uuid4().hex
        try:
            self.put_new(path, seal({**document, "writer": writer}, version))
        except AlreadyExists as taken:
            try:
                mine = self.get_json(path).get("writer") == writer
            except (Unreadable, NotFound):  # written by another call, and perhaps gone since
                raise taken from None
            if not mine:
                raise

    def put_json(self, path: str, document: Mapping[str, Any]) -> None:
        """Create or replace an object by a JSON document."""
        self.put(path, seal(document))

    def get_json(self, path: str) -> dict[str, Any]:
        """A JSON object as a dict, without its seal.

        Raises
        ------
        NotFound
        Damaged
            It is not JSON, no JSON object, or does not match its seal.
        UnsupportedRecord
            It was written by a later release.
        """
        try:
            return unseal(path, self.get(path))
        except Damaged:
            # Bytes that were damaged in transit only are whole on the second read.
            return unseal(path, self.get(path))

    def put_blob(self, data: bytes | Path) -> str:
        """Store bytes, or a file of any size, under their SHA-256, which is returned (64 hex digits).

        Storing them again changes nothing.
        """
        sha = _sha256(data)
        path = f"blobs/{sha}"
        there = False
        try:
            self.put_new(path, data)
        except AlreadyExists:
            there = True
            if not self._is_fresh(path, data, sha):
                self.put(path, data)
        if there or isinstance(data, Path):  # a bucket does not tell whether a file was there before
            # A fresh one as well: the writer that renewed it may be waiting for the same sweep, or have died.
            self._outlast_sweep(sha, data)
        return sha

    def _is_fresh(self, path: str, data: bytes | Path, sha: str) -> bool:
        """Whether a blob need not be written anew: its bytes are whole, and too young for a sweep to remove.

        The commit that names it is yet to be written.
        """
        written = self.written_at(path)
        if written is None or datetime.now(UTC) - written > _FRESH:
            return False
        with suppress(NotFound):
            return _digest(self._stream(path)) == sha if isinstance(data, Path) else self.get(path) == data
        return False

    def _outlast_sweep(self, sha: str, data: bytes | Path) -> None:
        """Store the blob once more if a sweep, which saw it before it was renewed, removes it."""
        mark = f"{CONDEMNED}/{sha}"
        while (condemned := self.written_at(mark)) and datetime.now(UTC) - condemned < STALE_MARK:
            time.sleep(0.02)
        if not self.exists(f"blobs/{sha}"):
            self.put(f"blobs/{sha}", data)

    def get_blob(self, sha: str) -> bytes:
        """The bytes stored under a SHA-256.

        Raises
        ------
        NotFound
        Damaged
            Their hash differs.
        """
        if _SHA256.fullmatch(sha) is None:
            raise NotFound(f"There is no blob {sha[:120]!r}.")
        path = f"blobs/{sha}"
        data = self.get(path)
        if hashlib.sha256(data).hexdigest() != sha:
            # As in `get_json`.
            data = self.get(path)
            _check_sha256(path, sha, hashlib.sha256(data).hexdigest())
        return data

    def put_file(self, path: Path) -> str:
        """Store a file of any size under `data/`, without reading it whole into memory.

        Returns
        -------
        str
            Its name below `data/`: the SHA-256, a hyphen and 8 random digits. So each upload is deleted with its own
            job, even if another job uploaded the same bytes.
        """
        name = f"{_sha256(path)}-{uuid.uuid4().hex[:8]}"
        with _store_errors(f"data/{name}"):
            self._storage.write(f"data/{name}", path, overwrite=False)
        return name

    def get_file(self, name: str, destination: Path) -> None:
        """Fetch an upload (`put_file`) into the file `destination`, which appears once it is complete and checked.

        Raises
        ------
        NotFound
        Damaged
            The bytes have another hash than when they were stored.
        """
        handle, partial = tempfile.mkstemp(prefix=f".{destination.name}-", dir=destination.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in self._checked(name):
                    file.write(chunk)
            os.replace(partial, destination)
        except BaseException:
            os.unlink(partial)
            raise

    def check_file(self, name: str) -> None:
        """Read an upload (`put_file`) and compare its hash.

        Raises
        ------
        NotFound
        Damaged
            The bytes have another hash than when they were stored.
        """
        for _ in self._checked(name):
            pass

    def _checked(self, name: str) -> Iterator[bytes | memoryview]:
        """An upload in pieces; raises Damaged after the last one if the hash differs from the name's."""
        sha = name.split("-")[0]
        if _SHA256.fullmatch(sha) is None:
            raise NotFound(f"There is no upload {name[:120]!r}.")
        path = f"data/{name}"
        check_path(path)
        digest = hashlib.sha256()
        for chunk in self._stream(path):
            digest.update(chunk)
            yield chunk
        _check_sha256(path, sha, digest.hexdigest())

    def _entries(self, prefix: str) -> List[ObjectEntry]:
        check_path(prefix)
        return self._retry(prefix, lambda: _checked_listing(prefix, self._storage.entries(prefix), attrgetter("path")))

    def _retry(self, path: str, read: Callable[[], Answer]) -> Answer:
        """The result of `read`, which is retried while the storage fails: it must change nothing."""
        until, pause = time.monotonic() + self._retry_seconds, 0.05
        while True:
            try:
                with _store_errors(path):
                    return read()
            except StoreUnavailable:
                if time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause *= 2

    def _stream(self, path: str) -> Iterator[bytes | memoryview]:
        chunks = self._storage.stream(path)
        while True:
            with _store_errors(path):
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
            yield chunk


def _sha256(data: bytes | Path) -> str:
    if not isinstance(data, Path):
        return _digest([data])
    with data.open("rb") as file:
        return _digest(iter(partial(file.read, _CHUNK), b""))


def _digest(chunks: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _check_sha256(path: str, expected: str, found: str) -> None:
    if found != expected:
        raise Damaged(path, f"its SHA-256 is {found}, not {expected}")


@contextmanager
def _store_errors(path: str) -> Iterator[None]:
    """Inside, failures of the storage are raised as errors of the vault that name `path`."""
    try:
        yield
    except VaultError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"There is no object {path}.", path) from error
    except FileExistsError as error:
        raise AlreadyExists(f"There is an object {path} already.") from error
    except (BaseError, OSError) as error:
        count_failure("store", "unavailable")
        # The system's message about a file names the place of the store, which clients must not learn.
        why = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise StoreUnavailable(f"The storage failed at {path}: {why}") from error


def _checked_listing(prefix: str, listing: Iterable[Listed], path_of: Callable[[Listed], str]) -> list[Listed]:
    """All entries of a listing; raises StoreUnavailable for a path damaged in transit, so that it is retried."""
    found = list(listing)
    for path in map(path_of, found):
        if not path.startswith(f"{prefix}/"):
            raise StoreUnavailable(f"The storage lists {path[:120]!r} below {prefix}.")
    return found
