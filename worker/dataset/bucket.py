"""Training data in a bucket: one object, or the objects under a prefix as a zip."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from engram.data.containers import ArchiveLimits
from engram.errors import ArchiveError, ArchiveTooLarge, Cancelled, TooManyEntries
from vault.settings import VaultSettings

TOGETHER = 32
"""Objects that are fetched at the same time, at most."""
TOGETHER_BYTES = 64 * 2**20
"""Bytes of these objects, unless one alone has more."""

_CHUNK = 4 * 2**20

Stop = Callable[[], bool]
"""Asked before each chunk; true stops."""

_Store = S3Store | GCSStore | AzureStore


class DataUnavailable(ArchiveError):
    """What `data.uri` names is not there or cannot be read."""

    code = "data_unavailable"


def fetch(uri: str, path: Path, settings: VaultSettings, limits: ArchiveLimits, cancel: Stop) -> None:
    """Write the archive at an address to `path`; of an address that ends with `/`, a zip of all objects under it.

    Raises
    ------
    DataUnavailable
        There is nothing, or it cannot be read.
    TooManyEntries, ArchiveTooLarge
        There is more under a prefix than an archive may have; nothing of it was fetched.
    Cancelled
    """
    parts = urlsplit(uri)
    key = parts.path.lstrip("/")
    try:
        store = _store(parts.scheme, parts.netloc, settings)
        if key.endswith("/") or not key:
            _fetch_prefix(store, uri, key, path, limits, cancel)
        else:
            _fetch_object(store, key, path, cancel)
    except (BaseError, OSError, ValueError) as error:
        raise DataUnavailable(f"{uri} cannot be read: {type(error).__name__}.") from error


def _store(scheme: str, bucket: str, settings: VaultSettings) -> _Store:
    if scheme == "gs":
        return GCSStore(bucket)
    if scheme == "az":
        return AzureStore(bucket)
    region = settings.s3_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return S3Store(
        bucket,
        config={"region": region, **({"endpoint": endpoint} if endpoint else {})},
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
    )


def _fetch_object(store: _Store, key: str, path: Path, cancel: Stop) -> None:
    with path.open("wb") as file:
        for chunk in obstore.get(store, key).stream(min_chunk_size=_CHUNK):
            _go_on(cancel)
            file.write(chunk)


def _fetch_prefix(store: _Store, uri: str, prefix: str, path: Path, limits: ArchiveLimits, cancel: Stop) -> None:
    sizes = _sizes(store, uri, prefix, limits, cancel)
    with (
        ThreadPoolExecutor(TOGETHER, "engram-bucket") as threads,
        ZipFile(path, "w", ZIP_STORED) as archive,
    ):
        total = 0
        for keys in _groups(sizes):
            _go_on(cancel)
            for key, data in zip(keys, threads.map(lambda key: _bytes(store, key), keys), strict=True):
                total += len(data)
                if total > limits.max_total_bytes:  # an object was replaced by a larger one since
                    raise ArchiveTooLarge(f"there are more than {limits.max_total_bytes} bytes under {uri}")
                archive.writestr(ZipInfo(key[len(prefix) :]), data)


def _sizes(store: _Store, uri: str, prefix: str, limits: ArchiveLimits, cancel: Stop) -> dict[str, int]:
    """The keys under a prefix in their order, with their bytes."""
    found: dict[str, int] = {}
    total = 0
    for some in obstore.list(store, prefix.rstrip("/") or None):
        _go_on(cancel)
        for one in some:
            key, size = one["path"], one["size"]
            if not key.startswith(prefix) or (not size and _is_folder(key, prefix)):
                continue
            total += size
            found[key] = size
            if len(found) >= limits.max_entries:
                raise TooManyEntries(f"there are {limits.max_entries} objects or more under {uri}")
            if size > limits.max_entry_bytes:
                raise ArchiveTooLarge(f"{key!r} has {size} bytes; {limits.max_entry_bytes} are allowed for a file")
            if total > limits.max_total_bytes:
                raise ArchiveTooLarge(f"there are more than {limits.max_total_bytes} bytes under {uri}")
    if not found:
        raise DataUnavailable(f"There is nothing under {uri}.")
    return dict(sorted(found.items()))


def _is_folder(key: str, prefix: str) -> bool:
    """Whether an empty object is what consoles put in place of a folder."""
    return key == prefix.rstrip("/") or key.endswith("/")


def _groups(sizes: dict[str, int]) -> Iterator[list[str]]:
    """Keys that are fetched at the same time, in order."""
    keys: list[str] = []
    size = 0
    for key, own in sizes.items():
        if keys and (len(keys) >= TOGETHER or size + own > TOGETHER_BYTES):
            yield keys
            keys, size = [], 0
        keys.append(key)
        size += own
    if keys:
        yield keys


def _bytes(store: _Store, key: str) -> bytes:
    return obstore.get(store, key).bytes().to_bytes()


def _go_on(cancel: Stop) -> None:
    if cancel():
        raise Cancelled("stopped while the data were fetched")
