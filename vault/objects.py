"""Write-once objects in a folder or in S3."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import uuid
from builtins import list as List
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, S3Store

from vault.documents import encode
from vault.errors import AlreadyExists, Damaged, InvalidPath, NotFound, StoreUnavailable, VaultError
from vault.folder import Folder
from vault.settings import VaultSettings

_CHUNK = 4 * 2**20
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FRESH = timedelta(hours=1)


class Objects:
    """Objects by path, such as `jobs/0192.../request.json`; safe to use from any thread.

    Whatever a call has written when it returns stays: in a folder, files and the folders that name them are flushed to
    disk, and a file gets its name only after that. Segments of a path are letters, digits, `.`, `_` and `-`, and begin
    with a letter or digit; anything else raises InvalidPath. Every call raises StoreUnavailable when the storage
    cannot be reached.
    """

    def __init__(self, store: ObjectStore, folder: Folder | None = None) -> None:
        self._store = store
        self._folder = folder
        """Set when the store is a local folder."""

    @classmethod
    def connect(cls, settings: VaultSettings) -> Objects:
        """The store that `settings.store_url` names; a local folder is made when it is not there."""
        root = settings.store_folder
        with _store_errors("the store"):
            if root is not None:
                store = LocalStore(root, mkdir=True)
                return cls(store, Folder(root, store))
            return cls(_s3(settings))

    def ping(self) -> None:
        """Ask the storage for something; raises StoreUnavailable."""
        try:
            self.list("models", limit=1)
        except NotFound as error:
            raise StoreUnavailable(f"The bucket cannot be listed: {error}") from error

    def put_new(self, path: str, data: bytes) -> None:
        """Create an object; of any number of racing writers one succeeds.

        Raises
        ------
        AlreadyExists
            There is one already, whatever it holds.
        """
        _check(path)
        with _store_errors(path):
            if self._folder is not None:
                self._folder.write(path, data, overwrite=False)
            else:
                obstore.put(self._store, path, data, mode="create")

    def put(self, path: str, data: bytes) -> None:
        """Create or replace an object, at once and whole."""
        _check(path)
        with _store_errors(path):
            if self._folder is not None:
                self._folder.write(path, data, overwrite=True)
            else:
                obstore.put(self._store, path, data)

    def get(self, path: str) -> bytes:
        """The bytes of an object; raises NotFound."""
        _check(path)
        with _store_errors(path):
            return bytes(obstore.get(self._store, path).bytes())

    def exists(self, path: str) -> bool:
        """Whether there is an object of that path."""
        return self.written_at(path) is not None

    def written_at(self, path: str) -> datetime | None:
        """When an object was written; None when there is none."""
        _check(path)
        try:
            with _store_errors(path):
                return obstore.head(self._store, path)["last_modified"]
        except NotFound:
            return None

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is removed already."""
        _check(path)
        with suppress(NotFound), _store_errors(path):
            obstore.delete(self._store, path)
            if self._folder is not None:
                self._folder.flush_names(path)

    def list(self, prefix: str, after: str | None = None, limit: int | None = None) -> List[str]:
        """Paths below the folder `prefix`, at any depth, sorted; those greater than the path `after`, `limit` at most.

        From S3 no more is fetched than the limit asks for.
        """
        _check(prefix)
        found: List[str] = []
        with _store_errors(prefix):
            for chunk in obstore.list(self._store, prefix, offset=after, chunk_size=min(limit or 1000, 1000)):
                found.extend(meta["path"] for meta in chunk)
                # A folder comes in no order, S3 in that of its keys.
                if self._folder is None and limit is not None and len(found) >= limit:
                    break
        return sorted(found)[:limit]

    def list_folders(self, prefix: str, after: str | None = None, limit: int | None = None) -> List[str]:
        """Names of the folders right below `prefix`, sorted; those greater than the name `after`, `limit` at most.

        A local store also names folders that everything was deleted from.
        """
        _check(prefix)
        with _store_errors(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)["common_prefixes"]
        names = sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)
        return [name for name in names if after is None or name > after][:limit]

    def create_json(self, path: str, document: Mapping[str, Any]) -> None:
        """Create an object from a JSON document, with a field `writer` that no other call ever writes.

        A writer whose answer got lost and who finds the object when trying again knows it for its own by that.

        Raises
        ------
        AlreadyExists
            Another call created it.
        """
        writer = uuid.uuid4().hex
        try:
            self.put_new(path, encode({**document, "writer": writer}).encode())
        except AlreadyExists:
            if self.get_json(path).get("writer") != writer:
                raise

    def get_json(self, path: str) -> dict[str, Any]:
        """A JSON object as a dict.

        Raises
        ------
        NotFound
        Damaged
            It is not JSON, or no JSON object.
        """
        try:
            document = json.loads(self.get(path))
        except ValueError as error:
            raise Damaged(path, f"it is not JSON ({error})") from error
        if not isinstance(document, dict):
            raise Damaged(path, "it is not a JSON object")
        return document

    def put_blob(self, data: bytes) -> str:
        """Store bytes under their SHA-256, which is returned (64 hex digits); storing them again changes nothing."""
        sha = hashlib.sha256(data).hexdigest()
        path = f"blobs/{sha}"
        try:
            self.put_new(path, data)
        except AlreadyExists:
            written = self.written_at(path)
            # Written anew when the stored bytes are damaged, and when they are old: a sweep spares what is young, and
            # the commit that will name this blob is yet to come.
            if written is None or datetime.now(UTC) - written > _FRESH or self.get(path) != data:
                self.put(path, data)
        return sha

    def get_blob(self, sha: str) -> bytes:
        """The bytes stored under a SHA-256.

        Raises
        ------
        NotFound
        Damaged
            They have another hash now.
        """
        if _SHA256.fullmatch(sha) is None:
            raise NotFound(f"There is no blob {sha[:120]!r}.")
        path = f"blobs/{sha}"
        data = self.get(path)
        _compare(path, sha, hashlib.sha256(data).hexdigest())
        return data

    def put_file(self, path: Path) -> str:
        """Store a file of any size under `data/`, without reading it whole into memory.

        Returns
        -------
        str
            Its name there: the SHA-256, a hyphen and 8 digits that make the name this call's own. So each upload is
            deleted with its own job, even where another uploaded the same bytes.
        """
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        name = f"{digest.hexdigest()}-{uuid.uuid4().hex[:8]}"
        with _store_errors(f"data/{name}"):
            if self._folder is not None:
                self._folder.write(f"data/{name}", path, overwrite=False)
            else:
                obstore.put(self._store, f"data/{name}", path, chunk_size=2 * _CHUNK, max_concurrency=4)
        return name

    def get_file(self, name: str, destination: Path) -> None:
        """Fetch what `put_file` stored into the file `destination`, which appears when it is whole and checked.

        Raises
        ------
        NotFound
        Damaged
            The bytes have another hash than when they were stored.
        """
        sha = name.split("-")[0]
        if _SHA256.fullmatch(sha) is None:
            raise NotFound(f"There is no upload {name[:120]!r}.")
        path = f"data/{name}"
        _check(path)
        digest = hashlib.sha256()
        handle, partial = tempfile.mkstemp(prefix=f".{destination.name}-", dir=destination.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in self._stream(path):
                    digest.update(chunk)
                    file.write(chunk)
            _compare(path, sha, digest.hexdigest())
            os.replace(partial, destination)
        except BaseException:
            os.unlink(partial)
            raise

    def _stream(self, path: str) -> Iterator[memoryview]:
        with _store_errors(path):
            chunks = iter(obstore.get(self._store, path).stream(min_chunk_size=_CHUNK))
        while True:
            with _store_errors(path):
                try:
                    chunk = next(chunks)
                except StopIteration:
                    return
            yield memoryview(chunk)


def _s3(settings: VaultSettings) -> S3Store:
    parts = settings.store_url.partition("://")[2].partition("/")
    region = settings.s3_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3Store(
        parts[0],
        prefix=parts[2].strip("/") or None,
        config={"region": region, **({"endpoint": endpoint} if endpoint else {})},
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": timedelta(seconds=5),
            # The whole of one request; a blob of 100 MB over a slow line needs minutes, a dead line is seen sooner.
            "timeout": timedelta(minutes=10),
            "read_timeout": timedelta(seconds=30),
        },
        retry_config={
            "max_retries": 5,
            "retry_timeout": timedelta(seconds=20),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
        },
    )


def _check(path: str) -> None:
    if not all(_SEGMENT.fullmatch(segment) for segment in path.split("/")):
        raise InvalidPath(f"An object cannot be called {path[:120]!r}.")


def _compare(path: str, expected: str, found: str) -> None:
    if found != expected:
        raise Damaged(path, f"its SHA-256 is {found}, not {expected}")


@contextmanager
def _store_errors(path: str) -> Iterator[None]:
    """Inside, the failures of obstore are raised as errors of ours that name `path`."""
    try:
        yield
    except VaultError:
        raise
    except FileNotFoundError as error:
        raise NotFound(f"There is no object {path}.") from error
    except AlreadyExistsError as error:
        raise AlreadyExists(f"There is an object {path} already.") from error
    except (BaseError, OSError) as error:
        raise StoreUnavailable(f"The storage failed at {path}: {str(error).splitlines()[0]}") from error
