"""Training data of a job as a local file: an upload, a file, or an object in S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from engram.errors import ArchiveError, Cancelled
from vault.jobs.job import Job
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore


class DataUnavailable(ArchiveError):
    """What `data.uri` names is not there or cannot be read."""

    code = "data_unavailable"


@contextmanager
def fetched(job: Job, objects: ObjectStore, settings: VaultSettings, cancel: Callable[[], bool]) -> Iterator[Path]:
    """The archive that a job names, as a file; copies are deleted at the end.

    Raises
    ------
    DataUnavailable, Damaged, StoreUnavailable
    Cancelled
        `cancel` turned true on the way.
    """
    if job.data.startswith("file://"):
        path = Path(job.data.removeprefix("file://"))
        if not path.is_file():
            raise DataUnavailable(f"There is no file at {job.data}.")
        yield path
        return
    with TemporaryDirectory(prefix="engram-job-") as folder:
        path = Path(folder, "data")
        if job.uploaded:
            objects.get_file(job.data, path)
        else:
            _fetch_s3(job.data, path, settings, cancel)
        yield path


def _fetch_s3(uri: str, path: Path, settings: VaultSettings, cancel: Callable[[], bool]) -> None:
    parts = urlsplit(uri)
    region = settings.s3_region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = settings.s3_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    store = S3Store(
        parts.netloc,
        config={"region": region, **({"endpoint": endpoint} if endpoint else {})},
        client_options={"allow_http": bool(endpoint and endpoint.startswith("http://"))},
    )
    try:
        with path.open("wb") as file:
            for chunk in obstore.get(store, parts.path.lstrip("/")).stream(min_chunk_size=4 * 2**20):
                if cancel():
                    raise Cancelled("stopped while the data were fetched")
                file.write(chunk)
    except (BaseError, OSError) as error:
        raise DataUnavailable(f"{uri} cannot be read: {type(error).__name__}.") from error
