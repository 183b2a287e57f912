"""The sweep that runs by itself, in one worker at a time."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta

from vault.errors import VaultError
from vault.maintenance.sweep import Swept
from vault.timestamps import now
from vault.vault import Vault

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

    def sweep_if_due(self) -> Swept | None:
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
