"""Background threads of a worker: sweep of the store, and search for jobs that nobody works on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from vault.errors import VaultError
from vault.maintenance.sweep import SweepSummary
from vault.timestamps import now
from vault.vault import Vault
from worker.job_runner import JobRunner

log = logging.getLogger("engram.worker")

_SWEEP_LEASE = "sweep:all"
"""No model can be called so."""
_SWEEP_MARK = "sweeps/last.json"
"""Written when a sweep has come to its end."""
_LONGEST_WAIT = 600.0
"""Seconds between two times that it is asked whether a sweep is due, at most."""


class Sweeper:
    """Thread that has the store swept every `seconds`, by whichever worker is first."""

    def __init__(self, vault: Vault, seconds: float) -> None:
        self._vault = vault
        self._every = timedelta(seconds=seconds)
        self._wait = min(seconds, _LONGEST_WAIT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; a sweep under way is left where it is, as if it had been killed."""
        self._over.set()

    def sweep_if_due(self) -> SweepSummary | None:
        """Sweep, unless it is too early or another worker does so now; what was removed."""
        if not self._due():
            return None
        lease = self._vault.leases.acquire(_SWEEP_LEASE, "sweeper")
        if lease is None:
            return None
        with lease:
            if not self._due():  # done by the one that had the lease until now
                return None
            swept = self._vault.sweep()
            self._vault.objects.put_json(_SWEEP_MARK, {"ended_at": now(), "removed": swept.counts()})
        log.info("swept: %s", ", ".join(f"{count} {name}" for name, count in swept.counts().items()))
        return swept

    def _due(self) -> bool:
        last = self._vault.objects.written_at(_SWEEP_MARK)
        return last is None or datetime.now(UTC) - last >= self._every

    def _run(self) -> None:
        while not self._over.wait(self._wait):
            try:
                self.sweep_if_due()
            except VaultError as error:
                log.warning("the store cannot be swept now: %s", error)


class Reconciler:
    """Thread that wakes a worker for each model with open jobs that nobody works on, as a message may be lost."""

    def __init__(self, vault: Vault, job_runner: JobRunner, wake: Callable[[str], None], seconds: float) -> None:
        self._vault = vault
        self._job_runner = job_runner
        self._wake = wake
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            # A busy worker leaves it to the others; its messages would only pile up.
            if not self._job_runner.busy:
                self._wake_idle()
            self._over.wait(self._seconds)

    def _wake_idle(self) -> None:
        try:
            for model in self._vault.jobs.waiting_models():
                self._wake(model)
        except VaultError as error:
            log.warning("open jobs cannot be looked for: %s", error)
