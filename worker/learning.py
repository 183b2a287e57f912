"""One attempt at one job: load, learn, verify, publish. Knows nothing of Celery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from engram import snapshot
from engram.archives import ReadArchive, read
from engram.containers import ArchiveLimits
from engram.definition import Definition
from engram.errors import Cancelled, EngramError
from engram.images import ImageLimits
from engram.options import LearnOptions
from engram.progress import Progress
from engram.runtime import threads
from vault.errors import Damaged, NotFound, UnknownModel
from vault.jobs import Job
from vault.vault import Vault
from worker import device, publishing, source
from worker.interruption import Interrupted, Interruption
from worker.progress import Reporter
from worker.settings import WorkerSettings
from worker.verification import before_learning, verify

log = logging.getLogger("engram.worker")

_LEARNING = (0.05, 0.93)
"""The part of a job's time that learning takes, between loading before it and verifying and publishing after."""


def run(vault: Vault, job: Job, token: int, stop: Callable[[], bool], settings: WorkerSettings) -> Job:
    """Work on `job` until it has a result; the job as it is then.

    Parameters
    ----------
    token
        The attempt's number, which later attempts exceed.
    stop
        Asked at every step; true leaves the job open for another worker.

    Raises
    ------
    Interrupted
        `stop` turned true.
    LeaseLost, JobOver
        A later attempt has begun, or somebody else gave the job its result.
    Moved, StoreUnavailable, Exception
        The attempt broke off; another may succeed.
    """
    interruption = Interruption(stop, lambda: vault.jobs.cancel_requested(job.id), settings.cancel_seconds)
    try:
        with Reporter(lambda figures: vault.jobs.report(job.id, figures), settings.progress_seconds) as reporter:
            result = _Attempt(vault, job, token, interruption, reporter, settings).run()
    except Cancelled as error:
        if not interruption.cancelled:
            raise Interrupted(job.id) from error
        return fail(vault, job, "cancelled", "The job was cancelled.", token, cancelled=True)
    except (EngramError, UnknownModel, Damaged, NotFound) as error:
        log.warning("job %s failed: %s", job.id, error, exc_info=error)
        return fail(vault, job, error.code, str(error), token)
    return vault.jobs.finish(job.id, "succeeded", result=result, token=token, delete_upload=True)


def fail(vault: Vault, job: Job, code: str, detail: str, token: int | None = None, *, cancelled: bool = False) -> Job:
    """End a job without a version; its upload is deleted."""
    return vault.jobs.finish(
        job.id,
        "cancelled" if cancelled else "failed",
        error={"code": code, "detail": detail},
        token=token,
        delete_upload=True,
    )


class _Attempt:
    """What the phases of one attempt share."""

    def __init__(
        self,
        vault: Vault,
        job: Job,
        token: int,
        interruption: Interruption,
        reporter: Reporter,
        settings: WorkerSettings,
    ) -> None:
        self._vault = vault
        self._job = job
        self._token = token
        self._interruption = interruption
        self._reporter = reporter
        self._settings = settings

    def run(self) -> dict[str, Any]:
        """All phases; the job's result."""
        self._enter("loading", 0.0)
        model = self._vault.models.get(self._job.model)
        if self._job.lineage not in (None, model.lineage):
            raise UnknownModel(self._job.model)
        done = publishing.find(self._vault, self._job)
        if done is not None:
            return publishing.result(self._vault, done)
        head = self._vault.log.head(model.name)
        if head is None:
            raise UnknownModel(model.name)
        memory = publishing.restore(self._vault, model, head)
        memory.admit(self._job.task)
        options = LearnOptions.model_validate(self._job.options)
        archive = self._read(memory.definition, options)
        with threads(self._settings.torch_threads):
            before = before_learning(self._vault, head, memory)
        memory.to(device.chosen(self._settings.device))
        report = memory.learn(
            self._job.task, archive.examples, options, progress=self._learning, cancel=self._interruption
        )
        memory.to("cpu")
        self._enter("verifying", _LEARNING[1])
        parts = snapshot.dump(memory)
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
        return publishing.result(self._vault, publication.publish(self._vault))

    def _enter(self, phase: str, fraction: float) -> None:
        self._reporter.report(phase, fraction)
        if self._interruption():
            raise Cancelled(f"stopped before {phase}")

    def _read(self, definition: Definition, options: LearnOptions) -> ReadArchive:
        settings = self._settings
        with source.fetched(self._job, self._vault.objects, settings, self._interruption) as path:
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
