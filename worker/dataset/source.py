"""Training data of a job as a local file: an upload, a file, or what lies in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from engram.data.containers import ArchiveLimits
from vault.jobs.job import Job
from vault.storage.object_store import ObjectStore
from worker.dataset.bucket import DataUnavailable, fetch
from worker.settings import WorkerSettings


@contextmanager
def fetched(job: Job, objects: ObjectStore, settings: WorkerSettings, cancel: Callable[[], bool]) -> Iterator[Path]:
    """The archive that a job names, as a file; copies are deleted at the end.

    Raises
    ------
    DataUnavailable, Damaged, StoreUnavailable
    TooManyEntries, ArchiveTooLarge
        There is more under a prefix than an archive may have.
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
            fetch(job.data, path, settings, ArchiveLimits.of(settings), cancel)
        yield path
