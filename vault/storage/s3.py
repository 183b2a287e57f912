"""A bucket of S3 as storage."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import ObjectStore, S3Store

from vault.settings import VaultSettings
from vault.storage.backend import ObjectEntry
from vault.storage.paths import is_segment

_PART = 8 * 2**20
_CHUNK = 4 * 2**20
_PAGE = 1000
_LARGE = ("/blobs/", "/data/", "/checkpoint/")


class S3Backend:
    """A `vault.storage.backend.StorageBackend` in S3, which refuses to create what is there by itself
    (`If-None-Match`).

    Parameters
    ----------
    quick
        For records and listings.
    patient
        The same bucket, for what may be large and may take its time.
    """

    def __init__(self, quick: ObjectStore, patient: ObjectStore) -> None:
        self._quick = quick
        self._patient = patient

    @classmethod
    def connect(cls, settings: VaultSettings) -> S3Backend:
        """The bucket that `settings.store_url` names."""
        return cls(quick(settings), patient(settings))

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        """Write an object; a file goes up in parts."""
        try:
            if isinstance(data, Path):
                # In parts nothing can be created only if absent: whoever writes files gives each a name of its own.
                obstore.put(self._patient, path, data, chunk_size=_PART, max_concurrency=4)
            else:
                obstore.put(self._for(path), path, data, mode="overwrite" if overwrite else "create")
        except AlreadyExistsError as error:
            raise FileExistsError(path) from error

    def read(self, path: str) -> bytes:
        """The bytes of an object."""
        return bytes(obstore.get(self._for(path), path).bytes())

    def stream(self, path: str) -> Iterator[memoryview]:
        """The same in pieces of a few MiB."""
        for chunk in obstore.get(self._patient, path).stream(min_chunk_size=_CHUNK):
            yield memoryview(chunk)

    def look(self, path: str) -> ObjectEntry:
        """How large an object is, and how old."""
        found = obstore.head(self._quick, path)
        return ObjectEntry(path, found["size"], found["last_modified"])

    def remove(self, path: str) -> None:
        """Remove an object; one that is not there is removed already."""
        obstore.delete(self._quick, path)

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        """Paths below a folder, in the order of their bytes; no more is fetched than the limit asks for."""
        count = 0
        for chunk in obstore.list(self._quick, prefix, offset=after, chunk_size=min(limit or _PAGE, _PAGE)):
            found = [meta["path"] for meta in chunk if not _is_strange(prefix, meta["path"])]
            yield from found
            count += len(found)
            if limit is not None and count >= limit:
                return

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        """Everything below a folder."""
        for chunk in obstore.list(self._quick, prefix):
            for meta in chunk:
                if not _is_strange(prefix, meta["path"]):
                    yield ObjectEntry(meta["path"], meta["size"], meta["last_modified"])

    def folders(self, prefix: str | None) -> list[str]:
        """Names of the folders right below `prefix`."""
        found = obstore.list_with_delimiter(self._quick, prefix)["common_prefixes"]
        return list(filter(is_segment, (path.rstrip("/").rsplit("/", 1)[-1] for path in found)))

    def remove_empty(self, prefix: str) -> None:
        """There are none: a folder of S3 is what its objects' names begin with."""

    def _for(self, path: str) -> ObjectStore:
        return self._patient if any(part in f"/{path}" for part in _LARGE) else self._quick


def _is_strange(prefix: str, path: str) -> bool:
    """Whether a path of the listing of a folder cannot be an object of ours: consoles of S3 mark folders by an object
    that is called as the folder is, and others may call theirs what they like."""
    return path == prefix or (path.startswith(f"{prefix}/") and not all(map(is_segment, path.split("/"))))


_LARGEST = timedelta(minutes=10)
"""A blob of 100 MB over a slow line needs minutes; that nothing comes any more is seen sooner."""


def quick(settings: VaultSettings) -> S3Store:
    """For records and listings: a store that hangs is given up soon."""
    limit = timedelta(seconds=settings.store_timeout_seconds / 2)
    return _connected(settings, limit, limit, tries=4)


def patient(settings: VaultSettings) -> S3Store:
    """For what may be large."""
    return _connected(settings, _LARGEST, timedelta(seconds=settings.store_timeout_seconds), tries=3)


def _connected(settings: VaultSettings, whole: timedelta, silence: timedelta, tries: int) -> S3Store:
    """A store whose requests may hang so many times, less one, and be answered all the same."""
    parts = settings.store_url.partition("://")[2].partition("/")
    region = settings.s3_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3Store(
        parts[0],
        prefix=parts[2].strip("/") or None,
        config={"region": region, **({"endpoint": endpoint} if endpoint else {})},
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
