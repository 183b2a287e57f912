"""Index of the open and of the most recent jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vault.jobs.ids import inverted, is_job_id
from vault.models import is_model_name
from vault.storage.object_store import ObjectStore

_ABANDONED = timedelta(hours=1)


class JobIndex:
    """Empty objects that name jobs; written before the job's request, so that no job is missing from the index.

    `open/{model}/{id}` exists until the job has a result; `recent/all/{id'}` and `recent/of/{model}/{id'}` exist as
    long as the job does, with inverted ids so that the newest come first.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def add(self, model: str, job_id: str) -> None:
        """Add a job that is about to be created."""
        for path in (_open(model, job_id), f"recent/all/{inverted(job_id)}", f"recent/of/{model}/{inverted(job_id)}"):
            self._objects.put(path, b"")

    def close(self, model: str, job_id: str) -> None:
        """Remove a job that is over from the open ones."""
        self._objects.delete(_open(model, job_id))

    def remove(self, model: str, job_id: str) -> None:
        """Remove a deleted job from the index."""
        for path in (_open(model, job_id), f"recent/all/{inverted(job_id)}", f"recent/of/{model}/{inverted(job_id)}"):
            self._objects.delete(path)

    def close_abandoned(self, model: str, job_id: str) -> None:
        """Close a job without a request, unless its submission may still be in progress."""
        written = self._objects.written_at(_open(model, job_id))
        if written is not None and datetime.now(UTC) - written > _ABANDONED:
            self.close(model, job_id)

    def open(self, model: str | None = None) -> list[tuple[str, str]]:
        """(model, id) of the open jobs, oldest first; a few may be over or not created yet."""
        if model is not None and not is_model_name(model):
            return []
        paths = self._objects.list(f"open/{model}" if model else "open")
        found = [path.split("/")[1:] for path in paths]
        # Other programs' objects, and names damaged in transit, are no jobs.
        pairs = [(parts[0], parts[1]) for parts in found if len(parts) == 2 and is_job_id(parts[1])]
        return sorted(pairs, key=lambda pair: pair[1])

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


def _open(model: str, job_id: str) -> str:
    return f"open/{model}/{job_id}"
