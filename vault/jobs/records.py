"""Request, result and cancellation records of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from vault.errors import AlreadyExists, NotFound, UnknownJob
from vault.jobs.ids import is_job_id
from vault.storage.documents import FIRST_FORMAT
from vault.storage.object_store import ObjectStore
from vault.timestamps import now

_RESULT = ("state", "error", "result", "attempts", "cancel_requested", "finished_at")


class JobRecords:
    """`jobs/{id}/request.json`, `result.json` and `cancel.json`, created once each."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def create(self, job_id: str, request: dict[str, Any], version: int = FIRST_FORMAT) -> None:
        """Write a request, sealed as of a format; raises AlreadyExists."""
        self._objects.create_json(_path(job_id, "request"), request, version)

    def request(self, job_id: str) -> dict[str, Any]:
        """The request of a job; raises UnknownJob, also for an invalid id."""
        if not is_job_id(job_id):
            raise UnknownJob(job_id)
        try:
            return self._objects.get_json(_path(job_id, "request"))
        except NotFound:
            raise UnknownJob(job_id) from None

    def finish(self, job_id: str, result: dict[str, Any]) -> bool:
        """Write a result; returns False if one exists, which stands."""
        assert tuple(sorted(result)) == tuple(sorted(_RESULT)), "a result has all of its fields"
        try:
            self._objects.create_json(_path(job_id, "result"), result)
        except AlreadyExists:
            return False
        return True

    def result(self, job_id: str) -> dict[str, Any] | None:
        """The result of a job; None as long as it is open."""
        try:
            document = self._objects.get_json(_path(job_id, "result"))
        except NotFound:
            return None
        return {name: document.get(name) for name in _RESULT}

    def is_over(self, job_id: str) -> bool:
        """Whether there is a result."""
        return self._objects.exists(_path(job_id, "result"))

    def cancel(self, job_id: str, by: Mapping[str, Any] | None = None) -> None:
        """Request the cancellation of a job; repeating it changes nothing."""
        document = {"requested_at": now()} | ({} if by is None else {"by": dict(by)})
        with suppress(AlreadyExists):
            self._objects.create_json(_path(job_id, "cancel"), document)

    def cancellation(self, job_id: str) -> dict[str, Any] | None:
        """When the cancellation of a job was requested, and perhaps by whom; None where it was not."""
        try:
            return self._objects.get_json(_path(job_id, "cancel"))
        except NotFound:
            return None

    def is_cancelled(self, job_id: str) -> bool:
        """Whether the cancellation of a job was requested."""
        return self._objects.exists(_path(job_id, "cancel"))

    def remove_checkpoints(self, job_id: str) -> None:
        """Remove the checkpoints of all attempts (`vault.jobs.checkpoints`)."""
        for path in self._objects.list(f"jobs/{job_id}/checkpoint"):
            self._objects.delete(path)


def _path(job_id: str, name: str) -> str:
    return f"jobs/{job_id}/{name}.json"
