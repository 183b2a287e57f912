"""Jobs: submission, cancellation, attempts and results of jobs in the store."""

from __future__ import annotations

import logging
import threading
from builtins import list as List
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_args

import redis

from vault.coordination.events import Events
from vault.coordination.leases import Leases
from vault.coordination.progress_board import ProgressBoard
from vault.errors import (
    AlreadyExists,
    Damaged,
    JobExists,
    JobOver,
    RedisUnavailable,
    StoreUnavailable,
    UnknownJob,
    UnknownModel,
    Unreadable,
)
from vault.jobs.attempts import Attempt, Attempts
from vault.jobs.decisions import Decision, Decisions, JobEnding
from vault.jobs.ids import is_job_id, new_job_id
from vault.jobs.index import JobIndex, OpenJob
from vault.jobs.job import OF_KINDS, Job, JobKind, Outcome, kind_of, lease_of
from vault.jobs.records import JobRecords
from vault.models import is_model_name
from vault.storage.documents import FIRST_FORMAT
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map
from vault.timestamps import now

log = logging.getLogger("engram.vault")

_CANCELLED = JobEnding("cancelled", {"code": "cancelled", "detail": "The job was cancelled."})
_CACHED_JOBS = 256
"""Jobs that are over; each holds its learning report, tens of kilobytes in memory."""


class Jobs:
    """The jobs in the store; safe to use from any thread.

    `jobs/{id}/request.json` creates a job and `result.json` ends it: the first result written stands. Between them come
    `attempts/`, `cancel.json` and `decisions/`. A job is running while the live lease of `Job.lease` names it
    (`Lease.assign`); otherwise it is queued. Redis holds only the progress, which is all that is lost with it.
    """

    def __init__(
        self, objects: ObjectStore, client: redis.Redis, leases: Leases, events: Events, progress_seconds: int
    ) -> None:
        self._objects = objects
        self._leases = leases
        self._events = events
        self._records = JobRecords(objects)
        self._attempts = Attempts(objects)
        self.decisions = Decisions(objects)
        """Decisions on all jobs."""
        self._index = JobIndex(objects)
        self._board = ProgressBoard(client, progress_seconds)
        self._over: OrderedDict[str, Job] = OrderedDict()
        """Cache of jobs that are over, since these never change."""
        self._lock = threading.Lock()

    def submit(
        self,
        model: str,
        task: str,
        data: str,
        options: Mapping[str, Any],
        *,
        job_id: str | None = None,
        lineage: str | None = None,
        extra: Mapping[str, Any] | None = None,
        kind: JobKind = "learn",
    ) -> Job:
        """Create a job, and publish that it is queued. Its upload must be stored before.

        Parameters
        ----------
        job_id
            Chosen by the caller (`vault.jobs.ids.new_job_id`); submitting the same request under it again returns the
            existing job.

        Raises
        ------
        UnknownModel, UnknownJob
            The name or the id is not valid.
        JobExists
            The id is taken by another request.
        """
        if not is_model_name(model):
            raise UnknownModel(model)
        job_id = job_id or new_job_id()
        if not is_job_id(job_id):
            raise UnknownJob(job_id)
        request: dict[str, Any] = {
            "id": job_id,
            "model": model,
            "task": task,
            "data": data,
            "options": dict(options),
            "lineage": lineage,
            "extra": dict(extra or {}),
            "created_at": now(),
        }
        if kind != "learn":
            request["kind"] = kind
        self._index.add(OpenJob(job_id, model, kind))
        try:
            self._records.create(job_id, request, FIRST_FORMAT if kind == "learn" else OF_KINDS)
        except AlreadyExists:
            there = self.get(job_id)
            if (there.model, there.task, there.options, there.kind) != (model, task, dict(options), kind):
                if (there.model, there.kind) != (model, kind):
                    self._index.close(OpenJob(job_id, model, kind))
                raise JobExists(job_id) from None
            return there
        self._events.publish(job_id, {"state": "queued"})
        return Job(**request)

    def get(self, job_id: str) -> Job:
        """A job by id; raises UnknownJob."""
        with self._lock:
            known = self._over.get(job_id)
        if known is not None:
            return known
        job = self._load(job_id)
        if job.over and job.kind == "learn":  # what was found of another may be much larger than a learning report
            with self._lock:
                self._over[job_id] = job
                while len(self._over) > _CACHED_JOBS:
                    self._over.popitem(last=False)
        return job

    def list(self, model: str | None = None, *, before: str | None = None, limit: int = 100) -> List[Job]:
        """Jobs, newest first; those older than the job `before` (an id: the last of the page before), `limit` at most.

        Fewer than `limit` are returned at the end only. Damaged records are skipped.
        """
        if before is not None and not is_job_id(before):
            raise UnknownJob(before)
        found: List[Job] = []
        while len(found) < limit:
            ids = self._index.recent(model, before, limit - len(found))
            if not ids:
                break
            found.extend(job for job in self._get_all(ids) if isinstance(job, Job))
            before = ids[-1]
        return found

    def open_jobs(self, model: str | None = None, kind: JobKind | None = None) -> List[Job]:
        """The jobs without a result, of one kind or of all, oldest first; those with damaged records are skipped."""
        named = [one for one in self._index.open(model) if kind in (None, one.kind)]
        found: List[Job] = []
        for one, job in zip(named, self._get_all([one.id for one in named]), strict=True):
            if isinstance(job, UnknownJob):
                self._index.close_abandoned(one)
            elif isinstance(job, Job) and job.over:
                # The process that wrote the result died before it could do this.
                self._clear(job)
            elif isinstance(job, Job):
                found.append(job)
        return found

    def open_models(self) -> List[str]:
        """Names of the models that may have open jobs, sorted; it may be polled, since it takes one listing."""
        return sorted({job.model for job in self._index.open()})

    def waiting_models(self, kind: JobKind | None = None) -> List[str]:
        """Those of them with an open job, of one kind or of any, that nobody works on, nor on one before it.

        It may be polled as well; raises RedisUnavailable.
        """
        leases = {job.lease: job.model for job in self._index.open() if kind in (None, job.kind)}
        holders = self._leases.holders(sorted(leases))
        return sorted({model for lease, model in leases.items() if holders[lease] is None})

    def request_cancel(self, job_id: str, by: Mapping[str, Any] | None = None) -> Job:
        """Request the cancellation of a job; returns the job afterwards. One that is over stays as it is.

        A job without any attempt is cancelled at once, and its upload deleted. Otherwise a worker cancels it, which
        reads `cancel_requested`: the current one or, if that is gone, the next.

        Raises
        ------
        UnknownJob
        """
        job = self.get(job_id)
        if job.over:
            return job
        self._records.cancel(job_id, by)
        # A worker writes its attempt and then reads the cancellation; here it is the other way round. So one of the two
        # sees the other.
        if self._attempts.last(job_id) == 0:
            with suppress(AlreadyExists):
                self.decisions.create(job_id, Decision.after(None, _CANCELLED))
            if (decided := self.decisions.last(job_id)) and (ending := decided.ending):
                return self.finish(job_id, ending.state, error=ending.error)
        self._events.publish(job_id, {"state": job.state, "cancel_requested": True})
        return self.get(job_id)

    def cancellation(self, job_id: str) -> dict[str, Any] | None:
        """The record of a requested cancellation: `requested_at`, and `by` where that was recorded."""
        return self._records.cancellation(job_id)

    def cancel_requested(self, job_id: str) -> bool:
        """Whether the cancellation of a job was requested; also False while the store does not answer."""
        try:
            return self._records.is_cancelled(job_id)
        except StoreUnavailable as error:
            log.warning("whether job %s is to be cancelled cannot be told: %s", job_id, error)
            return False

    def start_attempt(self, job_id: str, owner: str = "") -> int:
        """Begin an attempt; returns its number from 1, the fencing token. Read `cancel_requested` after it.

        Raises
        ------
        UnknownJob
        JobOver
        """
        self._records.request(job_id)
        if self._records.is_over(job_id):
            raise JobOver(job_id)
        number = self._attempts.start(job_id, owner)
        if self._records.is_over(job_id):
            raise JobOver(job_id)
        return number

    def release_attempt(self, job_id: str, token: int) -> None:
        """Record that an attempt was given up in good order, leaving the job to another worker."""
        self._attempts.release(job_id, token)
        if self._attempts.last(job_id) == token:
            self._board.clear(job_id)
            self._events.publish(job_id, {"state": "queued"})

    def attempts(self, job_id: str) -> List[Attempt]:
        """The attempts at a job by number; raises UnknownJob."""
        self._records.request(job_id)
        return self._attempts.all(job_id)

    def check_there(self, job_id: str) -> None:
        """Raise UnknownJob if the job was swept, so that nothing more is written for it."""
        self._records.request(job_id)

    def check_token(self, job_id: str, token: int) -> None:
        """Check that an attempt may still publish for its job; to be called before it does.

        Raises
        ------
        LeaseLost
            A later attempt than `token` has begun.
        JobOver
            The job has a result.
        """
        self._attempts.check(job_id, token)
        if self._records.is_over(job_id):
            raise JobOver(job_id)

    def report(self, job_id: str, figures: Mapping[str, Any]) -> None:
        """Report the progress of a running job: `phase`, `fraction` and so on. Never fails; kept in Redis only.

        The figures appear in `Job.phase` and `Job.progress`, and in an event with `state` "running".
        """
        self._board.write(job_id, figures)
        self._events.publish(job_id, {"state": "running", **figures})

    def finish(
        self,
        job_id: str,
        state: Outcome,
        *,
        error: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
        token: int | None = None,
    ) -> Job:
        """Give a job its result, publish it as the last event and delete the upload; the first result stands.

        Parameters
        ----------
        token
            The calling attempt; refused if a later one has begun.

        Raises
        ------
        UnknownJob
        LeaseLost
        """
        assert state in get_args(Outcome), "a job ends as succeeded, failed or cancelled"
        self._records.request(job_id)
        if token is not None:
            self._attempts.check(job_id, token)
        document = {
            "state": state,
            "error": dict(error) if error is not None else None,
            "result": dict(result) if result is not None else None,
            "attempts": self._attempts.last(job_id),
            "cancel_requested": self.cancel_requested(job_id),
            "finished_at": now(),
        }
        first = self._records.finish(job_id, document)
        job = self.get(job_id)
        self._clear(job)
        if first:
            self._events.publish(job_id, _last_event(job))
        return job

    def last_event(self, job_id: str) -> dict[str, Any] | None:
        """The last event of a job, made from its record; None while it is not over. Raises UnknownJob."""
        job = self.get(job_id)
        return _last_event(job) if job.over else None

    def _clear(self, job: Job) -> None:
        """Remove what only an open job needs; the index entry last, since it marks that this is yet to be done."""
        if job.uploaded:
            self._objects.delete(f"data/{job.data}")
        self._records.remove_checkpoints(job.id)
        self._index.close(OpenJob(job.id, job.model, job.kind))

    def _get_all(self, ids: List[str]) -> List[Job | UnknownJob | Unreadable]:
        """Each job, or the error that reading it raised: a damaged one must not block the others."""

        def find(job_id: str) -> Job | UnknownJob | Unreadable:
            try:
                return self.get(job_id)
            except UnknownJob as error:
                return error
            except Unreadable as error:
                log.error("job %s is passed over: %s", job_id, error)
                return error

        return parallel_map(find, ids)

    def _load(self, job_id: str) -> Job:
        request = self._records.request(job_id)
        result = self._records.result(job_id)
        try:
            known = {name: request[name] for name in ("id", "model", "task", "data", "options", "created_at")}
        except KeyError as error:
            raise Damaged(f"jobs/{job_id}/request.json", f"it lacks {error}") from error
        kind = kind_of(request)
        known.update(lineage=request.get("lineage"), extra=request.get("extra") or {}, kind=kind)
        if result is None:
            return Job(**known, **self._open_state(job_id, lease_of(kind, known["model"], job_id)))
        return Job(**known, **result, **self._last_progress(job_id, result["state"]))

    def _last_progress(self, job_id: str, state: Outcome) -> dict[str, Any]:
        """Last phase and progress of a job that is over."""
        if state == "succeeded":
            return {"progress": {"fraction": 1.0}}
        figures = self._board.read(job_id)
        return {"phase": figures.pop("phase", None), "progress": figures}

    def _open_state(self, job_id: str, lease: str) -> dict[str, Any]:
        try:
            holder = self._leases.holder(lease)
        except RedisUnavailable:
            holder = None
        running = holder is not None and holder.job == job_id
        figures = self._board.read(job_id) if running else {}
        return {
            "state": "running" if running else "queued",
            "attempts": self._attempts.last(job_id),
            "cancel_requested": self.cancel_requested(job_id),
            "phase": figures.pop("phase", None),
            "progress": figures,
        }


def _last_event(job: Job) -> dict[str, Any]:
    return {"state": job.state, "error": job.error, "result": job.result}
