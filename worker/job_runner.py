"""Job runner: works on the open jobs of a model under leases, with a bounded number of attempts."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from engram.runtime import give_back_freed_memory, threads
from vault.coordination.leases import Lease
from vault.errors import JobOver, LeaseLost, RedisUnavailable, StoreUnavailable, VaultError
from vault.jobs.checkpoints import last_checkpointed_attempt
from vault.jobs.job import Job
from vault.vault import Vault
from worker import metrics
from worker.attempt import fail_job, run_attempt
from worker.instrumentation import about, observed
from worker.interruption import Interrupted, ModelChanged
from worker.settings import WorkerSettings

log = logging.getLogger("engram.worker")

MOST_CHANGES = 10
"""How often a job is learned anew because its model got other engrams meanwhile, before it fails."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, that of temporary files too."""
_PAUSES = (1.0, 5.0, 15.0)
"""Seconds before another attempt at a job that broke off."""


class JobRunner:
    """Runner of the jobs of one model at a time: of those that learn the oldest first, then of its evaluations.

    Whoever holds a model's lease works on all of its open jobs that learn. A wake-up that finds the lease taken has no
    more to do for these: the holder looks for open jobs once more after it has given the lease back. An evaluation has
    a lease of its own, so that workers evaluate a model while it learns, and several of them at once. Tasks do not wait
    for evaluations: those that nobody works on are learned amid one, which goes on afterwards.
    """

    def __init__(self, vault: Vault, settings: WorkerSettings) -> None:
        self._vault = vault
        self._settings = settings
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._turn = threading.Lock()
        self._next_look = 0.0
        """When waiting tasks are looked for again, amid an evaluation."""
        self.stopping = threading.Event()
        """Set to stop at the next step; open jobs are left to other workers."""

    @property
    def busy(self) -> bool:
        """Whether there is work under way."""
        return self._turn.locked()

    def work(self, model: str) -> None:
        """Work on the model's open jobs until there is none left, or another worker has its lease. Never raises."""
        with self._turn, _calmly(model):
            self._learn_all(model)
            while self._evaluate_one(model):
                self._learn_all(model)

    def _learn_waiting(self) -> None:
        """Work on tasks that nobody works on, of whatever model; looked for every so often. Never raises."""
        if time.monotonic() < self._next_look:
            return
        models: list[str] = []
        with _calmly("any"):
            models = self._vault.jobs.waiting_models("learn")
        for model in models:
            with _calmly(model), threads(self._settings.worker_threads):
                self._learn_all(model)
        self._next_look = time.monotonic() + self._settings.reconcile_seconds

    def _learn_all(self, model: str) -> None:
        """Work on the jobs that learn until there is none left, or another worker has the model's lease."""
        while not self.stopping.is_set() and self._vault.jobs.open_jobs(model, "learn"):
            lease = self._vault.leases.acquire(model, self._owner)
            if lease is None:
                return
            with lease, _counted(lease):
                self._work_through(model, lease)

    def _evaluate_one(self, model: str) -> bool:
        """Work on the oldest evaluation that no other worker has, and whether there was one."""
        for job in self._vault.jobs.open_jobs(model, "evaluate"):
            if self.stopping.is_set():
                return False
            lease = self._vault.leases.acquire(job.lease, self._owner)
            if lease is None:
                continue
            with lease, _counted(lease), about(job):
                self._attempt(job, lease)
            return True
        return False

    def _work_through(self, model: str, lease: Lease) -> None:
        while jobs := self._vault.jobs.open_jobs(model, "learn"):
            if self.stopping.is_set() or lease.lost.is_set():
                raise Interrupted(model)
            with about(jobs[0]):
                self._attempt(jobs[0], lease)
            _assign(lease, None)

    def _attempt(self, job: Job, lease: Lease) -> None:
        """One attempt at a job, or its end when there were too many."""
        jobs = self._vault.jobs
        # An attempt that left a checkpoint got further than those before it: together they are no reason to give up.
        furthest = last_checkpointed_attempt(self._vault.objects, job.id)
        tried = [attempt for attempt in jobs.attempts(job.id) if attempt.number > furthest]
        broken_off = sum(not attempt.released for attempt in tried)
        if broken_off >= self._settings.max_attempts:
            detail = f"{broken_off} attempts broke off; the workers' logs tell why."
            fail_job(self._vault, job, "too_many_attempts", detail)
            return
        with suppress(JobOver):
            for changes in range(MOST_CHANGES + 1):
                token = jobs.start_attempt(job.id, self._owner)
                _assign(lease, job.id)
                what = f"learning {job.task}" if job.kind == "learn" else "evaluating"
                log.info("job %s: %s for %s, attempt %d", job.id, what, job.model, token)
                try:
                    with observed(job, token) as attempt:
                        attempt.outcome = self._try(job, token, lease, broken_off)
                    return
                except ModelChanged as error:
                    log.info("job %s: %s", job.id, error)
                    if changes == MOST_CHANGES:
                        detail = f"The model changed each of {changes + 1} times the task was learned; at last {error}."
                        fail_job(self._vault, job, "model_moved", detail, token)
                        return
                    # Nothing is wrong with the job; the attempt shall not count against it.
                    jobs.release_attempt(job.id, token)

    def _try(self, job: Job, token: int, lease: Lease, broken_off: int) -> str:
        """How the attempt `token` at a job ended, after others that broke off.

        Raises
        ------
        ModelChanged, Interrupted, LeaseLost, StoreUnavailable
        """
        jobs = self._vault.jobs
        try:
            # The last one begins at the beginning, in case it is the checkpoint that the others broke off at.
            resume = broken_off < max(1, self._settings.max_attempts - 1)
            stop = partial(self._must_stop, lease)
            amid = self._learn_waiting
            done = run_attempt(self._vault, job, token, stop, self._settings, resume=resume, amid=amid)
            log.info("job %s has %s", job.id, done.state, extra={"outcome": done.state})
            return done.state
        except Interrupted:
            # A worker that stood still past its lease may have been kept from its heartbeat by the job.
            if lease.forgotten or not lease.lost.is_set():
                jobs.release_attempt(job.id, token)
            raise
        except JobOver:
            log.info("job %s was ended by somebody else", job.id)
            return "overtaken"
        except (LeaseLost, ModelChanged):
            raise
        except Exception as error:
            if isinstance(error, StoreUnavailable) or (isinstance(error, OSError) and error.errno in _DISK_FULL):
                log.warning("job %s: attempt %d broke off: %s", job.id, token, error)
                self._give_back(job, token, lease)
                raise StoreUnavailable(str(error)) from error
            log.exception("job %s: attempt %d broke off", job.id, token)
            self.stopping.wait(_PAUSES[min(broken_off, len(_PAUSES) - 1)])
            return "broken_off"

    def _give_back(self, job: Job, token: int, lease: Lease) -> None:
        """Release an attempt as soon as the storage takes it: nothing is wrong with the job, so it shall not count."""
        while True:
            try:
                self._vault.jobs.release_attempt(job.id, token)
                return
            except StoreUnavailable as error:
                log.warning("job %s: waiting for the storage: %s", job.id, error)
            if self._must_stop(lease) or self.stopping.wait(_PAUSES[0]):
                return

    def _must_stop(self, lease: Lease) -> bool:
        return self.stopping.is_set() or lease.lost.is_set()


@contextmanager
def _calmly(model: str) -> Iterator[None]:
    """A block of work for a model whose errors are logged, since it will be looked for again."""
    try:
        yield
    except Interrupted:
        log.info("the work for %s is left to others", model)
    except LeaseLost as error:
        log.warning("model %s: %s", model, error)
    except VaultError as error:
        log.warning("model %s: %s; it will be looked for again", model, error)
    except Exception:
        log.exception("model %s: the work ended in a way nobody foresaw; it will be looked for again", model)
    finally:
        give_back_freed_memory()


@contextmanager
def _counted(lease: Lease) -> Iterator[None]:
    """A block after which a lease that was lost is counted."""
    try:
        yield
    finally:
        if lease.lost.is_set():
            metrics.lost.inc()


def _assign(lease: Lease, job: str | None) -> None:
    """Name the job under work in the lease; without Redis nobody can take the lease, so that the work goes on."""
    try:
        lease.assign(job)
    except RedisUnavailable as error:
        log.warning("nobody can be told who works for %s: %s", lease.model, error)
