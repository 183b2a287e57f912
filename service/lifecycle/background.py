"""Background tasks, begun anew when they fail: memory trimming, open jobs, the audit log."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from contextlib import suppress

from anyio import CapacityLimiter, to_thread

from engram.runtime import give_back_freed_memory, look_at_all
from service.metrics import Metrics
from vault.errors import VaultError
from vault.jobs import backlog
from vault.vault import Vault

log = logging.getLogger("engram.service")

_AGAIN_SECONDS = 5.0
"""Until what ended by an error that nobody foresaw is begun anew."""
_TRIM_SECONDS = 60.0
"""Between two times that freed memory is given back."""
_LOOK_SECONDS = 24 * 3600.0
"""Between two times that garbage is looked for in what collections pass over."""


_AUDIT_SECONDS = 3600.0
"""Between two completions of the audit log."""
_AUDIT_RETRY_SECONDS = 60.0
"""Until one that failed is tried again."""


class Background(ABC):
    """A task of the event loop that runs from `start` to `close` and never ends by itself.

    An error that nobody foresaw is logged, and the work is begun anew: were keys read no more, say, those revoked after
    that would let people in for ever.
    """

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; to be called inside the event loop."""
        self._task = asyncio.create_task(self._always())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    async def _run(self) -> None:
        """Do it, for ever."""

    async def _always(self) -> None:
        while True:
            try:
                await self._run()
            except Exception:
                log.exception("%s failed and is begun anew", type(self).__name__)
            await asyncio.sleep(_AGAIN_SECONDS)


class MemoryTrimmer(Background):
    """Gives freed memory back to the system once a minute, beside everything else."""

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TRIM_SECONDS)
            await asyncio.to_thread(give_back_freed_memory)


class GarbageLooker(Background):
    """Looks once a day for garbage among what collections pass over: little can be there, and it takes a pause."""

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            await asyncio.to_thread(look_at_all)


class AuditCompleter(Background):
    """Writes what the audit log lacks after deaths: when the process starts, and once an hour."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._limiter = CapacityLimiter(1)

    async def _run(self) -> None:
        while True:
            pause = _AUDIT_SECONDS
            try:
                await to_thread.run_sync(self._vault.complete_audit, limiter=self._limiter, abandon_on_cancel=True)
            except VaultError as error:
                log.warning("whether the audit log is complete cannot be told for now: %s", error)
                pause = _AUDIT_RETRY_SECONDS
            await asyncio.sleep(pause)


class BacklogWatch(Background):
    """Counts the open jobs every `seconds`, for Prometheus; what cannot be counted is shown as not a number."""

    def __init__(self, vault: Vault, metrics: Metrics, seconds: float) -> None:
        self._vault = vault
        self._metrics = metrics
        self._seconds = seconds
        self._failing = False
        # A thread of its own: requests may wait for a storage that hangs in all of the common ones.
        self._limiter = CapacityLimiter(1)

    async def _run(self) -> None:
        while True:
            await self._count()
            await asyncio.sleep(self._seconds)

    async def _count(self) -> None:
        try:
            now = await to_thread.run_sync(
                backlog.read, self._vault.objects, self._vault.leases, limiter=self._limiter, abandon_on_cancel=True
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
