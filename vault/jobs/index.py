"""Where jobs are found without looking at all of them: the open ones, and the newest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vault.jobs.ids import inverted, is_job_id
from vault.models import is_model_name
from vault.storage.object_store import ObjectStore

_ABANDONED = timedelta(hours=1)


class JobIndex:
    """Empty objects that name jobs; written before the job's request, so that no job is without them.

    `open/{model}/{id}` until the job has a result; `recent/all/{id'}` and `recent/of/{model}/{id'}` as long as there is
    the job, with ids turned round so that the newest come first.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def add(self, model: str, job_id: str) -> None:
        """Name a job that is about to be."""
        for path in (_open(model, job_id), f"recent/all/{inverted(job_id)}", f"recent/of/{model}/{inverted(job_id)}"):
            self._objects.put(path, b"")

    def close(self, model: str, job_id: str) -> None:
        """The job is over."""
        self._objects.delete(_open(model, job_id))

    def remove(self, model: str, job_id: str) -> None:
        """The job is no more."""
        for path in (_open(model, job_id), f"recent/all/{inverted(job_id)}", f"recent/of/{model}/{inverted(job_id)}"):
            self._objects.delete(path)

    def close_abandoned(self, model: str, job_id: str) -> None:
        """The job has no request; unless its submission may be under way, none will come."""
        written = self._objects.written_at(_open(model, job_id))
        if written is not None and datetime.now(UTC) - written > _ABANDONED:
            self.close(model, job_id)

    def open(self, model: str | None = None) -> list[tuple[str, str]]:
        """(model, id) of the open jobs, oldest first; a few may be over, or not yet be."""
        if model is not None and not is_model_name(model):
            return []
        paths = self._objects.list(f"open/{model}" if model else "open")
        found = [path.split("/")[1:] for path in paths]
        # Whatever else may lie there, or was harmed on its way here, is no job.
        pairs = [(parts[0], parts[1]) for parts in found if len(parts) == 2 and is_job_id(parts[1])]
        return sorted(pairs, key=lambda pair: pair[1])

    def recent(self, model: str | None, before: str | None, limit: int) -> list[str]:
        """Ids of jobs, newest first; those older than the job `before`, `limit` at most, and none only at the end."""
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
