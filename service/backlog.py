"""How many jobs wait, told to Prometheus by every replica: workers may be what is missing."""

from __future__ import annotations

import asyncio
import logging
import math

from anyio import CapacityLimiter, to_thread

from service.background import Background
from service.metrics import Metrics
from vault.errors import VaultError
from vault.jobs import backlog
from vault.vault import Vault

log = logging.getLogger("engram.service")


class BacklogWatch(Background):
    """Looks every so many seconds; what cannot be told is shown as not a number."""

    def __init__(self, vault: Vault, metrics: Metrics, seconds: float) -> None:
        self._vault = vault
        self._metrics = metrics
        self._seconds = seconds
        self._failing = False
        # Of its own: requests may wait for a storage that hangs in all of the common ones.
        self._alone = CapacityLimiter(1)

    async def _run(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._seconds)

    async def _look(self) -> None:
        try:
            now = await to_thread.run_sync(
                backlog.read, self._vault.objects, self._vault.leases, limiter=self._alone, abandon_on_cancel=True
            )
        except VaultError as error:
            if not self._failing:
                log.warning("how many jobs wait cannot be told: %s", error)
            self._failing = True
            now = backlog.Backlog(0, 0, math.nan)
            queued, running = math.nan, math.nan
        else:
            self._failing = False
            queued, running = now.queued, now.running
        self._metrics.open_jobs.labels("queued").set(queued)
        self._metrics.open_jobs.labels("running").set(running)
        self._metrics.oldest_job.set(now.oldest_seconds)
