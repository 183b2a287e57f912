"""One attempt at one job: load, learn, verify, publish. Knows nothing of Celery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from engram.checkpointing.progress import Progress
from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.data.archives import ReadArchive, read
from engram.data.containers import ArchiveLimits
from engram.data.images import ImageLimits
from engram.errors import Cancelled, EngramError, InputError
from engram.memory import dump
from engram.runtime import threads
from vault.commit_log import Commit
from vault.errors import NotFound, UnknownModel, Unreadable
from vault.jobs.checkpoints import JobCheckpoints
from vault.jobs.job import Job
from vault.vault import Vault
from worker import dataset_source, metrics, outcome, publishing, resources
from worker.checkpoints import StoredCheckpoints
from worker.instrumentation import PhaseRecorder
from worker.interruption import EndReason, Interrupted, Interruption, Watchdog
from worker.progress import ProgressReporter
from worker.publishing import before_learning, verify
from worker.resources import is_out_of_memory, look_for_end, out_of_memory, release
from worker.settings import WorkerSettings

log = logging.getLogger("engram.worker")

_LEARNING = (0.05, 0.93)
"""The part of a job's time that learning takes, between loading before it and verifying and publishing after."""


def run(
    vault: Vault, job: Job, token: int, stop: Callable[[], bool], settings: WorkerSettings, *, resume: bool = True
) -> Job:
    """Work on `job` until it has a result; the job as it is then.

    Parameters
    ----------
    token
        The attempt's number, which later attempts exceed.
    stop
        Asked at every step; true leaves the job open for another worker.
    resume
        Whether to go on from what earlier attempts have left, and to leave something to later ones.

    Raises
    ------
    Interrupted
        `stop` turned true.
    LeaseLost, JobOver
        A later attempt has begun, or somebody else gave the job its result.
    Moved, StoreUnavailable, Exception
        The attempt broke off; another may succeed.
    """
    interruption = Interruption(stop, look_for_end(vault, job, settings), settings.cancel_seconds)
    try:
        with Watchdog(interruption, lambda end: outcome.end(vault, job, end, token)) as watchdog:
            result = _worked(vault, job, token, interruption, watchdog, settings, resume)
    except Cancelled as error:
        if interruption.end is None:
            raise Interrupted(job.id) from error
        return _ended(outcome.end(vault, job, interruption.end, token))
    except (EngramError, UnknownModel, Unreadable, NotFound) as error:
        # What is wrong with an upload may name its files, which are not for the log, and nothing here is to blame.
        theirs = isinstance(error, InputError)
        log.warning("job %s failed: %s", job.id, error.code if theirs else error, exc_info=None if theirs else error)
        return fail(vault, job, error.code, str(error), token)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning("job %s takes too much memory", job.id, exc_info=error)
        return _ended(outcome.end(vault, job, out_of_memory(settings), token))
    finally:
        release()
    return _ended(vault.jobs.finish(job.id, "succeeded", result=result, token=token))


def _worked(
    vault: Vault,
    job: Job,
    token: int,
    interruption: Interruption,
    watchdog: Watchdog,
    settings: WorkerSettings,
    resume: bool,
) -> dict[str, Any]:
    """The job's result."""
    tell = partial(vault.jobs.report, job.id)
    with PhaseRecorder() as phases, ProgressReporter(tell, settings.progress_seconds, phases.enter) as reporter:
        return _Attempt(vault, job, token, interruption, watchdog, reporter, settings, resume).run()


def fail(vault: Vault, job: Job, code: str, detail: str, token: int | None = None) -> Job:
    """End a job without a version; one that has made a version before, and died then, has succeeded all the same."""
    return _ended(outcome.end(vault, job, EndReason(code, detail), token))


def _ended(job: Job) -> Job:
    metrics.ended(job)
    return job


class _Attempt:
    """What the phases of one attempt share."""

    def __init__(
        self,
        vault: Vault,
        job: Job,
        token: int,
        interruption: Interruption,
        watchdog: Watchdog,
        reporter: ProgressReporter,
        settings: WorkerSettings,
        resume: bool,
    ) -> None:
        self._vault = vault
        self._job = job
        self._token = token
        self._interruption = interruption
        self._watchdog = watchdog
        self._reporter = reporter
        self._settings = settings
        self._resume = resume

    def run(self) -> dict[str, Any]:
        """All phases; the job's result."""
        self._enter("loading", 0.0)
        model = self._vault.models.get(self._job.model)
        if self._job.lineage not in (None, model.lineage):
            raise UnknownModel(self._job.model)
        if (done := outcome.made(self._vault, self._job)) is not None:
            return outcome.result(self._vault, done)
        head = self._vault.log.head(model.name)
        if head is None:
            raise UnknownModel(model.name)
        memory = publishing.load_memory(self._vault, model, head)
        memory.admit(self._job.task)
        options = LearnOptions.model_validate(self._job.options)
        archive = self._read(memory.definition, options)
        with threads(self._settings.torch_threads):
            before = before_learning(self._vault, head, memory)
        memory.to(resources.chosen(self._settings.device))
        report = memory.learn(
            self._job.task,
            archive.examples,
            options,
            progress=self._learning,
            cancel=self._interruption,
            checkpoints=self._checkpoints(head),
        )
        metrics.resumed.inc(min(1, report.resumed))
        memory.to("cpu")
        self._enter("verifying", _LEARNING[1])
        parts = dump(memory)
        with threads(self._settings.torch_threads):
            proof = verify(parts, before, self._job.task, report.recognised)
        self._enter("publishing", 0.98)
        left_out = {"unreadable": [asdict(one) for one in archive.unreadable]}
        publication = publishing.Publication(
            self._job,
            self._token,
            head,
            parts,
            archive.examples.classes,
            proof.to_dict(),
            {**report.to_dict(), **left_out},
        )
        return outcome.result(self._vault, publication.publish(self._vault, self._settle))

    def _settle(self) -> None:
        """The last moment at which the job can end without a version."""
        self._watchdog.settle()
        if self._interruption():
            raise Cancelled("stopped before the commit")

    def _checkpoints(self, head: Commit) -> StoredCheckpoints:
        left = JobCheckpoints(self._vault.objects, self._vault.jobs, self._job.id, self._token)
        seconds, stopping = self._settings.checkpoint_seconds, lambda: self._interruption.stopping
        return StoredCheckpoints(left, head, seconds, stopping, resume=self._resume)

    def _enter(self, phase: str, fraction: float) -> None:
        self._reporter.report(phase, fraction)
        if self._interruption():
            raise Cancelled(f"stopped before {phase}")

    def _read(self, definition: Definition, options: LearnOptions) -> ReadArchive:
        settings = self._settings
        with dataset_source.fetched(self._job, self._vault.objects, settings, self._interruption) as path:
            return read(
                path,
                definition.input,
                ArchiveLimits(
                    max_entries=settings.max_archive_entries,
                    max_total_bytes=settings.max_archive_bytes,
                    max_entry_bytes=settings.max_image_bytes,
                    max_ratio=settings.max_archive_ratio,
                    max_decoded_bytes=settings.max_decoded_bytes,
                ),
                options.max_unreadable,
                self._interruption,
                lambda share: self._reporter.report("loading", share * _LEARNING[0]),
                ImageLimits(max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes),
            )

    def _learning(self, progress: Progress) -> None:
        begin, end = _LEARNING
        self._reporter(replace(progress, fraction=begin + progress.fraction * (end - begin)))
