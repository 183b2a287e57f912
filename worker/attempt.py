"""One attempt at one job, without Celery: loading, learning, verification and publication."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from engram.checkpointing.progress import Progress
from engram.config.options import LearnOptions
from engram.data.archives import ReadArchive, read
from engram.data.containers import ArchiveLimits
from engram.data.image_limits import ImageLimits
from engram.data.isolation.decoder import BoundedDecoder
from engram.errors import Cancelled, EngramError, InputError
from engram.memory import Memory, dump
from engram.runtime import threads
from engram.training.report import LearningReport
from vault import approval
from vault.commit_log import Commit
from vault.errors import NotFound, UnknownModel, Unreadable
from vault.jobs.checkpoints import JobCheckpoints
from vault.jobs.job import Job
from vault.vault import Vault
from worker import dataset_source, metrics, outcome, resources
from worker.checkpoints import StoredCheckpoints
from worker.instrumentation import PhaseRecorder
from worker.interruption import EndReason, Interrupted, Interruption, Watchdog
from worker.progress import ProgressReporter
from worker.resources import end_finder, is_out_of_memory, out_of_memory, release
from worker.settings import WorkerSettings
from worker.versions.blobs import JobBlobs
from worker.versions.publishing import Publication, load_memory
from worker.versions.verification import before_learning, verify

log = logging.getLogger("engram.worker")

_LEARNING = (0.05, 0.93)
"""The part of a job's time that learning takes, between loading before it and verifying and publishing after."""


def run_attempt(
    vault: Vault, job: Job, token: int, stop: Callable[[], bool], settings: WorkerSettings, *, resume: bool = True
) -> Job:
    """Work on `job` until it has a result; the job as it is then.

    Parameters
    ----------
    token
        The attempt's number, which later attempts exceed.
    stop
        Called at every step; true leaves the job open for another worker.
    resume
        Whether to go on from what earlier attempts have left, and to leave something to later ones.

    Raises
    ------
    Interrupted
        `stop` turned true.
    LeaseLost, JobOver
        A later attempt has begun, or somebody else gave the job its result.
    ModelChanged, StoreUnavailable, Exception
        The attempt broke off; another may succeed.
    """
    attempt = _Attempt(vault, job, token, stop, settings, resume)
    try:
        result = attempt.run()
    except Cancelled as error:
        if attempt.interruption.end is None:
            raise Interrupted(job.id) from error
        return _ended(outcome.end(vault, job, attempt.interruption.end, token))
    except (EngramError, UnknownModel, Unreadable, NotFound) as error:
        # What is wrong with an upload may name its files, which are not for the log, and nothing here is to blame.
        theirs = isinstance(error, InputError)
        log.warning("job %s failed: %s", job.id, error.code if theirs else error, exc_info=None if theirs else error)
        return fail_job(vault, job, error.code, str(error), token)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        log.warning("job %s takes too much memory", job.id, exc_info=error)
        return _ended(outcome.end(vault, job, out_of_memory(settings), token))
    finally:
        release()
    return _ended(vault.jobs.finish(job.id, "succeeded", result=result, token=token))


def fail_job(vault: Vault, job: Job, code: str, detail: str, token: int | None = None) -> Job:
    """End a job without a version; one that has made a version before, and died then, has succeeded all the same."""
    return _ended(outcome.end(vault, job, EndReason(code, detail), token))


def _ended(job: Job) -> Job:
    metrics.ended(job)
    return job


def _found(archive: ReadArchive, report: LearningReport) -> dict[str, Any]:
    """What the report says of the upload."""
    return {
        "unreadable": [asdict(one) for one in archive.unreadable],
        "left_out": asdict(archive.left_out),
        "constant": dict(archive.constant),
        "warnings": [*archive.warnings, *report.warnings],
    }


class _Attempt:
    """One attempt at a job, phase by phase."""

    def __init__(
        self, vault: Vault, job: Job, token: int, stop: Callable[[], bool], settings: WorkerSettings, resume: bool
    ) -> None:
        self._vault = vault
        self._job = job
        self._token = token
        self._settings = settings
        self._resume = resume
        self.interruption = Interruption(stop, end_finder(vault, job, settings), settings.cancel_seconds)
        self._watchdog = Watchdog(self.interruption, lambda end: outcome.end(vault, job, end, token))
        self._phases = PhaseRecorder()
        publish = partial(vault.jobs.report, job.id)
        self._reporter = ProgressReporter(publish, settings.progress_seconds, self._phases.enter)

    def run(self) -> dict[str, Any]:
        """All phases; the job's result."""
        with self._watchdog, self._phases, self._reporter:
            return self._run()

    def _run(self) -> dict[str, Any]:
        self._enter("loading", 0.0)
        model = self._vault.models.get(self._job.model)
        if self._job.lineage not in (None, model.lineage):
            raise UnknownModel(self._job.model)
        if (done := outcome.made(self._vault, self._job)) is not None:
            return outcome.result(self._vault, done)
        head = approval.learned_on(self._vault.log, model.name)
        if head is None:
            raise UnknownModel(model.name)
        blobs = JobBlobs(self._vault.objects)
        memory = load_memory(self._vault, model, head, blobs)
        memory.admit(self._job.task)
        options = LearnOptions.model_validate(self._job.options)
        began = time.monotonic()
        archive = self._read(memory, options)
        reading = time.monotonic() - began
        with threads(self._settings.torch_threads):
            before = before_learning(blobs, head, memory)
        memory.to(resources.choose_device(self._settings.device))
        report = memory.learn(
            self._job.task,
            archive.examples,
            options,
            progress=self._learning,
            cancel=self.interruption,
            checkpoints=self._checkpoints(head),
        )
        metrics.resumed.inc(min(1, report.resumed))
        memory.to("cpu")
        self._enter("verifying", _LEARNING[1])
        parts = dump(memory)
        with threads(self._settings.torch_threads):
            proof = verify(
                parts,
                before,
                self._job.task,
                report.recognised,
                report.class_figures,
                head=head,
                loaded=memory.method.loaded,
            )
        self._enter("publishing", 0.98)
        told = {**report.to_dict(), "phases": self._phases.around(report.phases, reading), **_found(archive, report)}
        publication = Publication(
            self._job, self._token, head, parts, archive.examples.classes, proof.to_dict(), told, blobs
        )
        return outcome.result(self._vault, publication.publish(self._vault, self._settle))

    def _settle(self) -> None:
        """The last moment at which the job can end without a version."""
        self._watchdog.settle()
        if self.interruption():
            raise Cancelled("stopped before the commit")

    def _checkpoints(self, head: Commit) -> StoredCheckpoints:
        left = JobCheckpoints(self._vault.objects, self._vault.jobs, self._job.id, self._token)
        seconds, stopping = self._settings.checkpoint_seconds, lambda: self.interruption.stopping
        return StoredCheckpoints(left, head, seconds, stopping, resume=self._resume)

    def _enter(self, phase: str, fraction: float) -> None:
        self._reporter.report(phase, fraction)
        if self.interruption():
            raise Cancelled(f"stopped before {phase}")

    def _read(self, memory: Memory, options: LearnOptions) -> ReadArchive:
        definition, settings, limits = memory.definition, self._settings, ImageLimits.of(self._settings)
        with (
            dataset_source.fetched(self._job, self._vault.objects, settings, self.interruption) as path,
            BoundedDecoder(limits, stop=self.interruption) as decoder,
        ):
            return read(
                path,
                definition.input,
                ArchiveLimits.of(settings),
                options.max_unreadable,
                self.interruption,
                lambda share: self._reporter.report("loading", share * _LEARNING[0]),
                limits,
                definition.decoder,
                decoder,
                memory.method.needed_classes,
            )

    def _learning(self, progress: Progress) -> None:
        begin, end = _LEARNING
        self._reporter(replace(progress, fraction=begin + progress.fraction * (end - begin)))
