"""The sweep that runs by itself, in one worker at a time."""

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

_LEASE = "sweep:all"
"""No model can be called so."""
_MARK = "sweeps/last.json"
"""Written when a sweep has come to its end."""
_LONGEST_WAIT = 600.0


class Sweeper:
    """Has the store swept every `seconds`, by whichever worker looks first."""

    def __init__(self, vault: Vault, seconds: float) -> None:
        self._vault = vault
        self._every = timedelta(seconds=seconds)
        self._wait = min(seconds, _LONGEST_WAIT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Look from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; a sweep under way is left where it is, as if it had been killed."""
        self._over.set()

    def sweep_if_due(self) -> SweepSummary | None:
        """Sweep, unless it is too early or another worker is at it; what was removed."""
        if not self._due():
            return None
        lease = self._vault.leases.acquire(_LEASE, "sweeper")
        if lease is None:
            return None
        with lease:
            if not self._due():  # done by the one that had the lease until now
                return None
            swept = self._vault.sweep()
            self._vault.objects.put_json(_MARK, {"ended_at": now(), "removed": swept.counts()})
        log.info("swept: %s", ", ".join(f"{count} {name}" for name, count in swept.counts().items()))
        return swept

    def _due(self) -> bool:
        last = self._vault.objects.written_at(_MARK)
        return last is None or datetime.now(UTC) - last >= self._every

    def _run(self) -> None:
        while not self._over.wait(self._wait):
            try:
                self.sweep_if_due()
            except VaultError as error:
                log.warning("the store cannot be swept now: %s", error)


class Reconciler:
    """Looks for models with open jobs that nobody works on, so that no lost message keeps a job from being done."""

    def __init__(self, vault: Vault, job_runner: JobRunner, wake: Callable[[str], None], seconds: float) -> None:
        self._vault = vault
        self._job_runner = job_runner
        self._wake = wake
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        """Look now and then every so many seconds, in a thread."""
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            # A busy worker leaves it to the others; its messages would only pile up.
            if not self._job_runner.busy:
                self._look()
            self._over.wait(self._seconds)

    def _look(self) -> None:
        try:
            models = self._vault.jobs.open_models()
            holders = self._vault.leases.holders(models)
            for model in models:
                if holders[model] is None:
                    self._wake(model)
        except VaultError as error:
            log.warning("open jobs cannot be looked for: %s", error)
