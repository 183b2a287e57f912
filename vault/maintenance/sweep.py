"""Garbage collection by age: jobs, checkpoints, uploads, recorded answers and blobs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

from vault.errors import NotFound, UnknownJob, Unreadable
from vault.jobs.idempotency import FOLDER as ANSWERS
from vault.jobs.ids import inverted, is_job_id
from vault.jobs.index import JobIndex, OpenJob
from vault.jobs.job import kind_of
from vault.jobs.records import JobRecords
from vault.maintenance.orphans import remove_orphans
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore

log = logging.getLogger("engram.vault")


@dataclass(frozen=True)
class SweepAges:
    """Minimum ages at which unneeded objects are removed."""

    jobs: timedelta
    """Since a job's end."""
    uploads: timedelta
    """Since an upload that no open job names was stored; its job may be about to be created."""
    answers: timedelta
    """Since a request with an idempotency key was answered."""
    blobs: timedelta
    """Since a blob that no commit names was stored; the decision on its commit may be about to be made."""

    @classmethod
    def of(cls, settings: VaultSettings) -> Self:
        """The ages of the settings."""
        hours = timedelta(hours=1)
        return cls(
            jobs=timedelta(days=settings.job_keep_days),
            uploads=settings.upload_keep_hours * hours,
            answers=settings.idempotency_keep_hours * hours,
            blobs=settings.blob_keep_hours * hours,
        )

    @classmethod
    def all(cls, age: timedelta) -> Self:
        """The same age for all."""
        return cls(age, age, age, age)


@dataclass(frozen=True)
class SweepSummary:
    """Objects that a sweep removed, or would remove."""

    jobs: list[str]
    """Ids of jobs that were over."""
    checkpoints: list[str]
    """Paths of checkpoints of jobs that are over."""
    uploads: list[str]
    """Paths."""
    answers: list[str]
    """Names of idempotency records (`vault.jobs.idempotency`)."""
    blobs: list[str]
    """Paths."""

    def counts(self) -> dict[str, int]:
        """Number of each."""
        return {name: len(found) for name, found in vars(self).items()}


class Sweep:
    """One sweep. It may run beside any other process, including other sweeps, and may die at any moment: the next one
    continues.

    Parameters
    ----------
    dry_run
        Whether to report only, without removing anything.
    """

    def __init__(self, objects: ObjectStore, ages: SweepAges, dry_run: bool = False) -> None:
        self._objects = objects
        self._ages = ages
        self._dry_run = dry_run
        self._records = JobRecords(objects)
        self._index = JobIndex(objects)

    def run(self) -> SweepSummary:
        """Remove everything that is old enough.

        Raises
        ------
        StoreUnavailable
        """
        # Uploads are listed before the jobs that may name them.
        uploads = self._objects.written("data")
        recent = self._objects.written("recent")
        jobs: dict[str, dict[str, datetime]] = defaultdict(dict)
        for path, written in self._objects.written("jobs").items():
            jobs[path.split("/")[1]][path] = written
        checkpoints = self._remove_checkpoints(jobs)
        # Interrupted submissions, which have no request.
        named = {path: path.rsplit("/", 1)[1] for path in recent}
        never = [path for path, name in named.items() if is_job_id(name) and inverted(name) not in jobs]
        self._delete(path for path in never if _age(recent[path]) > self._ages.uploads)
        return SweepSummary(
            jobs=self._remove_jobs(jobs),
            checkpoints=checkpoints,
            uploads=self._remove_uploads(uploads, jobs),
            answers=self._remove_answers(),
            blobs=self._remove_blobs(),
        )

    def _remove_jobs(self, jobs: dict[str, dict[str, datetime]]) -> list[str]:
        removed = []
        for job_id, written in jobs.items():
            try:
                ended = self._ended(job_id, written) if is_job_id(job_id) else None
                if ended is not None and _age(ended) > self._ages.jobs:
                    self._remove_job(job_id, written)
                    removed.append(job_id)
            except Unreadable as error:
                log.error("job %s is not swept: %s", job_id, error)
        return removed

    def _ended(self, job_id: str, written: dict[str, datetime]) -> datetime | None:
        """Time at which a job ended; None as long as it is open."""
        if _result(job_id) in written or _request(job_id) in written:
            return written.get(_result(job_id))
        try:
            self._records.request(job_id)  # its name may have been damaged in transit
        except UnknownJob:
            # Written by a worker that was suspended until the job was over and swept.
            return max(written.values())
        return None

    def _remove_job(self, job_id: str, paths: Iterable[str]) -> None:
        """Remove a job: its index entries first, then the request, the result last, so that it never seems open."""
        try:
            request = self._records.request(job_id)
        except UnknownJob:
            request = None  # an earlier sweep died after removing the request
        if self._dry_run:
            return
        if request is not None:
            self._index.remove(OpenJob(job_id, str(request["model"]), kind_of(request)))
        first, last = _request(job_id), _result(job_id)
        for path in (first, *(path for path in paths if path not in (first, last)), last):
            self._objects.delete(path)
        self._objects.remove_folder(f"jobs/{job_id}")

    def _remove_checkpoints(self, jobs: dict[str, dict[str, datetime]]) -> list[str]:
        """Remove checkpoints written by workers that did not know that their job was over."""
        late = [
            path
            for job_id, written in jobs.items()
            if _result(job_id) in written
            for path in written
            if path.startswith(f"jobs/{job_id}/checkpoint/")
        ]
        return self._delete(late)

    def _remove_uploads(self, uploads: dict[str, datetime], jobs: dict[str, dict[str, datetime]]) -> list[str]:
        """Remove uploads of interrupted submissions."""
        needed = set()
        # From two listings: an id damaged in transit would leave its job's upload unreferenced.
        ids = {job.id for job in self._index.open()}.union(filter(is_job_id, jobs))
        for job_id in ids:
            if _result(job_id) in jobs.get(job_id, {}):
                continue
            try:
                needed.add(f"data/{self._records.request(job_id)['data']}")
            except UnknownJob:
                continue
            except Unreadable as error:
                # Its upload may be any of those listed.
                log.error("no upload is swept: %s", error)
                return []
        old = [path for path, when in uploads.items() if path not in needed and _age(when) > self._ages.uploads]
        return self._delete(old)

    def _remove_answers(self) -> list[str]:
        newest: dict[str, datetime] = {}
        paths = self._objects.written(ANSWERS)
        for path, written in paths.items():
            name = path.split("/")[1]
            newest[name] = max(written, newest.get(name, written))
        old = {name for name, written in newest.items() if _age(written) > self._ages.answers}
        self._delete(path for path in paths if path.split("/")[1] in old)
        for name in old:
            if not self._dry_run:
                self._objects.remove_folder(f"{ANSWERS}/{name}")
        return sorted(old)

    def _remove_blobs(self) -> list[str]:
        try:
            return remove_orphans(self._objects, self._ages.blobs, self._dry_run)
        except (Unreadable, NotFound) as error:
            # The blobs that it names are unknown.
            log.error("no blob is swept: %s", error)
            return []

    def _delete(self, paths: Iterable[str]) -> list[str]:
        found = list(paths)
        if not self._dry_run:
            for path in found:
                self._objects.delete(path)
        return found


def _request(job_id: str) -> str:
    return f"jobs/{job_id}/request.json"


def _result(job_id: str) -> str:
    return f"jobs/{job_id}/result.json"


def _age(written: datetime) -> timedelta:
    return datetime.now(UTC) - written
