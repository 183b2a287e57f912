"""Object storage in an S3 bucket, and the settings of its clients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, S3Store

from vault.settings import VaultSettings
from vault.storage.backend import ObjectEntry
from vault.storage.paths import is_segment

if TYPE_CHECKING:
    from obstore.store import S3Config

_PART = 8 * 2**20
_CHUNK = 4 * 2**20
_PAGE = 1000
_LARGE = ("/blobs/", "/data/", "/checkpoint/")
"""Folders of objects that may be large."""
_LARGE_TIMEOUT = timedelta(minutes=10)
"""A blob of 100 MB over a slow line needs minutes; a connection on which nothing arrives is given up sooner."""


class S3Backend:
    """A `vault.storage.backend.StorageBackend` in a bucket; S3 itself refuses to create an object that exists
    (`If-None-Match`).

    Parameters
    ----------
    small_objects
        Client for records and listings.
    large_objects
        Client of the same bucket for objects that may be large, with longer timeouts.
    """

    def __init__(self, small_objects: ObjectStore, large_objects: ObjectStore) -> None:
        self._small = small_objects
        self._large = large_objects

    @classmethod
    def connect(cls, settings: VaultSettings) -> S3Backend:
        """The bucket that `settings.store_url` names."""
        return cls(small_objects_client(settings), large_objects_client(settings))

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        """Write an object; a file is uploaded in parts."""
        try:
            if isinstance(data, Path):
                # A multipart upload cannot fail if the object exists: callers give each file a name of its own.
                obstore.put(self._large, path, data, chunk_size=_PART, max_concurrency=4)
            else:
                obstore.put(self._for(path), path, data, mode="overwrite" if overwrite else "create")
        except AlreadyExistsError as error:
            raise FileExistsError(path) from error

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        return bytes(obstore.get(self._for(path), path).bytes())

    def stream(self, path: str) -> Iterator[memoryview]:
        """The bytes of an object, in pieces of a few MiB."""
        for chunk in obstore.get(self._large, path).stream(min_chunk_size=_CHUNK):
            yield memoryview(chunk)

    def stat(self, path: str) -> ObjectEntry:
        """Size and age of an object."""
        found = obstore.head(self._small, path)
        return ObjectEntry(path, found["size"], found["last_modified"])

    def remove(self, path: str) -> None:
        """Remove an object; a missing one is ignored."""
        obstore.delete(self._small, path)

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        """Paths below a folder, in the order of their bytes; no more is fetched than the limit asks for."""
        count = 0
        for chunk in obstore.list(self._small, prefix, offset=after, chunk_size=min(limit or _PAGE, _PAGE)):
            found = [meta["path"] for meta in chunk if not _is_strange(prefix, meta["path"])]
            yield from found
            count += len(found)
            if limit is not None and count >= limit:
                return

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """Everything below a folder."""
        for chunk in obstore.list(self._small, prefix):
            for meta in chunk:
                if not _is_strange(prefix, meta["path"]):
                    yield ObjectEntry(meta["path"], meta["size"], meta["last_modified"])

    def folders(self, prefix: str | None) -> list[str]:
        """Names of the folders right below `prefix`."""
        found = obstore.list_with_delimiter(self._small, prefix)["common_prefixes"]
        return list(filter(is_segment, (path.rstrip("/").rsplit("/", 1)[-1] for path in found)))

    def remove_empty(self, prefix: str) -> None:
        """Do nothing: S3 has no folders but the prefixes of its objects' names."""

    def _for(self, path: str) -> ObjectStore:
        return self._large if any(part in f"/{path}" for part in _LARGE) else self._small


def _is_strange(prefix: str, path: str) -> bool:
    """Whether a listed path is none of ours: consoles of S3 mark folders by an object of the folder's name, and other
    programs may use any name."""
    return path == prefix or (path.startswith(f"{prefix}/") and not all(map(is_segment, path.split("/"))))


def small_objects_client(settings: VaultSettings) -> S3Store:
    """Client for records and listings, which gives up soon on a store that hangs."""
    limit = timedelta(seconds=settings.store_timeout_seconds / 2)
    return _client(settings, limit, limit, tries=4)


def large_objects_client(settings: VaultSettings) -> S3Store:
    """Client for objects that may be large."""
    return _client(settings, _LARGE_TIMEOUT, timedelta(seconds=settings.store_timeout_seconds), tries=3)


def _client(settings: VaultSettings, whole: timedelta, silence: timedelta, tries: int) -> S3Store:
    """A client whose requests succeed although all but one of so many tries hang.

    Parameters
    ----------
    whole
        Longest duration of one request.
    silence
        Longest time without a byte.
    """
    parts = settings.store_url.partition("://")[2].partition("/")
    region = settings.s3_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config: S3Config = {"region": region}
    if endpoint:
        config["endpoint"] = endpoint
    if settings.s3_access_key_id and settings.s3_secret_access_key:
        config["access_key_id"] = settings.s3_access_key_id.get_secret_value()
        config["secret_access_key"] = settings.s3_secret_access_key.get_secret_value()
    if settings.s3_session_token:
        config["session_token"] = settings.s3_session_token.get_secret_value()
    return S3Store(
        parts[0],
        prefix=parts[2].strip("/") or None,
        config=config,
        client_options={
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "connect_timeout": min(timedelta(seconds=5), silence),
            "timeout": whole,
            "read_timeout": silence,
        },
        retry_config={
            "max_retries": 5,
            "retry_timeout": silence * tries,
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
        },
    )
