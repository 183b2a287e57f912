"""An attempt at a job: what ends it early, and what reports how far it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from engram.errors import Cancelled
from vault.errors import UnknownModel
from vault.jobs.job import Job
from vault.models import Model
from vault.vault import Vault
from worker import outcome
from worker.instrumentation import PhaseRecorder
from worker.interruption import Interruption, Watchdog
from worker.progress import ProgressReporter
from worker.resources import end_finder
from worker.settings import WorkerSettings


class JobAttempt(ABC):
    """One attempt at a job, phase by phase.

    Parameters
    ----------
    token
        The attempt's number.
    stop
        Asked at every step; true leaves the job open for another worker.
    """

    def __init__(self, vault: Vault, job: Job, token: int, stop: Callable[[], bool], settings: WorkerSettings) -> None:
        self.vault = vault
        self.job = job
        self.token = token
        self.settings = settings
        self.interruption = Interruption(stop, end_finder(vault, job, settings), settings.cancel_seconds)
        self.phases = PhaseRecorder()
        publish = partial(vault.jobs.report, job.id)
        self.reporter = ProgressReporter(publish, settings.progress_seconds, self.phases.enter)
        self._watchdog = Watchdog(self.interruption, lambda end: outcome.end(vault, job, end, token))

    def run(self) -> dict[str, Any]:
        """All phases; the job's result."""
        with self._watchdog, self.phases, self.reporter:
            return self.work()

    @abstractmethod
    def work(self) -> dict[str, Any]:
        """All phases, within what watches over them; the job's result."""

    def enter(self, phase: str, fraction: float) -> None:
        """Begin a phase; raises Cancelled where it is to end."""
        self.reporter.report(phase, fraction)
        if self.interruption():
            raise Cancelled(f"stopped before {phase}")

    def settle(self) -> None:
        """Note that this is the last moment at which the job can be ended by others; raises Cancelled."""
        self._watchdog.settle()
        if self.interruption():
            raise Cancelled("stopped before the end")

    def model(self) -> Model:
        """The model that the job is about; raises UnknownModel where that was deleted, or made anew."""
        model = self.vault.models.get(self.job.model)
        if self.job.lineage not in (None, model.lineage):
            raise UnknownModel(self.job.model)
        return model
