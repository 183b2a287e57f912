"""One attempt at one job, without Celery; to learn: loading, learning, verification, publication."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from pydantic import ValidationError

from engram.checkpointing.progress import Progress
from engram.config.options import LearnOptions
from engram.data.archives import ReadArchive, read
from engram.data.containers import ArchiveLimits
from engram.data.image_limits import ImageLimits
from engram.data.isolation.decoder import BoundedDecoder
from engram.errors import Cancelled, EngramError, InputError, TaskExists, UnsupportedFormat
from engram.memory import Memory, dump
from engram.runtime import threads
from engram.training.report import LearningReport
from vault import approval
from vault.classes.names import is_shown_elsewhere
from vault.commit_log import Commit
from vault.errors import NotFound, UnknownModel, Unreadable
from vault.jobs.checkpoints import JobCheckpoints
from vault.jobs.job import Job
from vault.vault import Vault
from worker import metrics, outcome, resources
from worker.checkpoints import StoredCheckpoints
from worker.dataset import source
from worker.interruption import EndReason, Interrupted
from worker.resources import is_out_of_memory, out_of_memory, release
from worker.settings import WorkerSettings
from worker.versions.blobs import JobBlobs
from worker.versions.evaluation import EvaluationAttempt
from worker.versions.job_attempt import JobAttempt
from worker.versions.publishing import Publication, load_memory
from worker.versions.verification import before_learning, verify

log = logging.getLogger("engram.worker")

_LEARNING = (0.05, 0.93)
"""The part of a job's time that learning takes, between loading before it and verifying and publishing after."""


def run_attempt(
    vault: Vault,
    job: Job,
    token: int,
    stop: Callable[[], bool],
    settings: WorkerSettings,
    *,
    resume: bool = True,
    amid: Callable[[], None] = lambda: None,
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
    amid
        Called in between by an evaluation, which may wait.

    Raises
    ------
    Interrupted
        `stop` turned true.
    LeaseLost, JobOver
        A later attempt has begun, or somebody else gave the job its result.
    ModelChanged, StoreUnavailable, Exception
        The attempt broke off; another may succeed.
    """
    attempt: JobAttempt
    if job.kind == "evaluate":
        attempt = EvaluationAttempt(vault, job, token, stop, settings, amid)
    else:
        attempt = _LearningAttempt(vault, job, token, stop, settings, resume)
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
    else:
        return _ended(vault.jobs.finish(job.id, "succeeded", result=result, token=token))
    finally:  # whoever waits for the job does not wait for this
        release()


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


def _options(job: Job) -> LearnOptions:
    """A job's options of learning; raises UnsupportedFormat for what a later release takes."""
    try:
        return LearnOptions.model_validate(job.options)
    except ValidationError as error:
        where = ", ".join(sorted({".".join(map(str, each["loc"])) for each in error.errors()}))
        raise UnsupportedFormat(f"this release cannot learn by these options: {where} is not known") from error


class _LearningAttempt(JobAttempt):
    """One attempt at learning a task.

    Parameters
    ----------
    resume
        As of `run_attempt`.
    """

    def __init__(
        self, vault: Vault, job: Job, token: int, stop: Callable[[], bool], settings: WorkerSettings, resume: bool
    ) -> None:
        super().__init__(vault, job, token, stop, settings)
        self._resume = resume

    def work(self) -> dict[str, Any]:
        self.enter("loading", 0.0)
        model = self.model()
        if (done := outcome.made(self.vault, self.job)) is not None:
            return outcome.result(self.vault, done)
        head = approval.learned_on(self.vault.log, model.name)
        if head is None:
            raise UnknownModel(model.name)
        blobs = JobBlobs(self.vault.objects)
        memory = load_memory(self.vault, model, head, blobs)
        memory.admit(self.job.task)
        if is_shown_elsewhere(head, self.job.task):  # renamed since the job was submitted
            raise TaskExists(f"the model already has a task {self.job.task!r}, which was learned under another name")
        options = _options(self.job)
        began = time.monotonic()
        archive = self._read(memory, options)
        reading = time.monotonic() - began
        with threads(self.settings.torch_threads):
            before = before_learning(blobs, head, memory, partial(self.vault.answers.get, model))
        memory.to(resources.chosen(self.settings.device))
        report = memory.learn(
            self.job.task,
            archive.examples,
            options,
            progress=self._learning,
            cancel=self.interruption,
            checkpoints=self._checkpoints(head),
        )
        metrics.resumed.inc(min(1, report.resumed))
        memory.to("cpu")
        self.enter("verifying", _LEARNING[1])
        parts = dump(memory)
        with threads(self.settings.torch_threads):
            proof = verify(
                parts,
                before,
                self.job.task,
                report.recognised,
                report.class_figures,
                head=head,
                loaded=memory.method.loaded,
                mixed_precision=options.mixed_precision,
            )
        self.enter("publishing", 0.98)
        told = {**report.to_dict(), "phases": self.phases.around(report.phases, reading), **_found(archive, report)}
        publication = Publication(
            self.job, self.token, head, parts, archive.examples.classes, proof.to_dict(), told, blobs, proof.logits
        )
        return outcome.result(self.vault, publication.publish(self.vault, self.settle))

    def _checkpoints(self, head: Commit) -> StoredCheckpoints:
        left = JobCheckpoints(self.vault.objects, self.vault.jobs, self.job.id, self.token)
        seconds, stopping = self.settings.checkpoint_seconds, lambda: self.interruption.stopping
        return StoredCheckpoints(left, head, seconds, stopping, resume=self._resume)

    def _read(self, memory: Memory, options: LearnOptions) -> ReadArchive:
        definition, settings, limits = memory.definition, self.settings, ImageLimits.of(self.settings)
        with (
            source.fetched(self.job, self.vault.objects, settings, self.interruption) as path,
            BoundedDecoder(limits, stop=self.interruption) as decoder,
        ):
            return read(
                path,
                definition.input,
                ArchiveLimits.of(settings),
                options.max_unreadable,
                self.interruption,
                lambda share: self.reporter.report("loading", share * _LEARNING[0]),
                limits,
                definition.decoder,
                decoder,
                memory.method.needed_classes,
            )

    def _learning(self, progress: Progress) -> None:
        begin, end = _LEARNING
        self.reporter(replace(progress, fraction=begin + progress.fraction * (end - begin)))
