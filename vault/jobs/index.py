"""Index of the open and of the most recent jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from vault.jobs.ids import inverted, is_job_id
from vault.jobs.job import JobKind, lease_of
from vault.models import is_model_name
from vault.storage.object_store import ObjectStore

_ABANDONED = timedelta(hours=1)
_EVALUATIONS = "evaluations"


class OpenJob(NamedTuple):
    """What the index says of an open job."""

    id: str
    model: str
    kind: JobKind

    @property
    def lease(self) -> str:
        """As of `Job`."""
        return lease_of(self.kind, self.model, self.id)


class JobIndex:
    """Empty objects that name jobs; written before the job's request, so that no job is missing from the index.

    `open/{model}/{id}` exists until the job has a result, or `open/{model}/evaluations/{id}` of one that evaluates,
    which earlier releases pass over; `recent/all/{id'}` and `recent/of/{model}/{id'}` exist as long as the job does,
    with inverted ids so that the newest come first.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def add(self, job: OpenJob) -> None:
        """Add a job that is about to be created."""
        for path in (open_path(job), *_recent(job.model, job.id)):
            self._objects.put(path, b"")

    def close(self, job: OpenJob) -> None:
        """Remove a job that is over from the open ones."""
        self._objects.delete(open_path(job))

    def remove(self, job: OpenJob) -> None:
        """Remove a deleted job from the index."""
        for path in (open_path(job), *_recent(job.model, job.id)):
            self._objects.delete(path)

    def close_abandoned(self, job: OpenJob) -> None:
        """Close a job without a request, unless its submission may still be in progress."""
        written = self._objects.written_at(open_path(job))
        if written is not None and datetime.now(UTC) - written > _ABANDONED:
            self.close(job)

    def open(self, model: str | None = None) -> list[OpenJob]:
        """The open jobs, oldest first; a few may be over or not created yet."""
        if model is not None and not is_model_name(model):
            return []
        paths = self._objects.list(f"open/{model}" if model else "open")
        found = filter(None, map(_read, paths))
        return sorted(found, key=lambda job: job.id)

    def recent(self, model: str | None, before: str | None, limit: int) -> list[str]:
        """Ids of jobs older than the job `before`, newest first, `limit` at most; empty only at the end."""
        if model is not None and not is_model_name(model):
            return []
        folder = f"recent/of/{model}" if model else "recent/all"
        after = f"{folder}/{inverted(before)}" if before else None
        while paths := self._objects.list(folder, after, limit):
            names = [path.rsplit("/", 1)[1] for path in paths]
            if found := [inverted(name) for name in names if is_job_id(name)]:
                return found
            after = paths[-1]
        return []


def open_path(job: OpenJob) -> str:
    """The object that exists as long as a job is open."""
    within = job.model if job.kind == "learn" else f"{job.model}/{_EVALUATIONS}"
    return f"open/{within}/{job.id}"


def _recent(model: str, job_id: str) -> tuple[str, str]:
    return f"recent/all/{inverted(job_id)}", f"recent/of/{model}/{inverted(job_id)}"


def _read(path: str) -> OpenJob | None:
    """The job that an object names; other programs' objects, and names damaged in transit, are none."""
    match path.split("/")[1:]:
        case [model, job_id] if is_job_id(job_id):
            return OpenJob(job_id, model, "learn")
        case [model, kind, job_id] if kind == _EVALUATIONS and is_job_id(job_id):
            return OpenJob(job_id, model, "evaluate")
    return None
