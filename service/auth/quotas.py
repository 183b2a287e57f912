"""Rate limits and quotas of API keys, counted in Redis, or in this process while Redis is away."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from weakref import WeakValueDictionary

from anyio import to_thread
from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage, SlidingWindowCounterSupport
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from starlette.requests import Request

from service.errors.exceptions import Overloaded, QuotaExceeded, RateLimited
from service.errors.validation import counted
from service.middleware.response_headers import LimitUse
from vault.coordination.connection import PREFIX
from vault.jobs.jobs import Jobs
from vault.keys import Key, KeyLimits

log = logging.getLogger("engram.service")

_PATIENCE = 0.25
"""Seconds that Redis may take; a prediction must not wait long for being counted."""
_AWAY_SECONDS = 5.0
"""How long Redis is left alone after it failed."""
_JOBS_RETRY = 30
"""Seconds after which a job may have ended."""
_SLOT_SECONDS = 10.0
"""How long a submission waits for others of its key, each of which only writes a record."""


class _Storage(RedisStorage):
    """The counters in Redis, for which no other client than that of Redis is imported."""

    DEPENDENCIES = {"redis": RedisStorage.DEPENDENCIES["redis"]}  # noqa: RUF012  # declared so by limits


class Quotas:
    """Limits on requests, images and open jobs by key.

    Windows slide: a limit holds for any minute or any day, estimated from two counters as sliding window counters do.
    Open jobs are counted in the store. A key without a limit costs nothing.

    Parameters
    ----------
    redis_url
        Of the Redis that all replicas share.
    jobs
        The jobs in the store.
    defaults
        Limits of keys that have none of their own.
    """

    def __init__(self, redis_url: str, jobs: Jobs, defaults: KeyLimits) -> None:
        self._connections = ConnectionPool.from_url(
            redis_url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=Retry(NoBackoff(), 0)
        )
        storage = _Storage(
            "async+redis://",
            implementation="redispy",
            key_prefix=f"{PREFIX}limits",
            connection_pool=self._connections,  # type: ignore[arg-type]  # documented, but not in the signature
        )
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._own = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._jobs = jobs
        self._defaults = defaults
        self._away_until = 0.0
        self._slots: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By key, while it submits."""

    async def count_request(self, request: Request, key: Key) -> None:
        """Count a request; raises RateLimited."""
        limit = key.limits.requests_per_minute or self._defaults.requests_per_minute
        if limit is not None:
            use, fits = await self._count("requests", RateLimitItemPerMinute(limit), key.id, 1)
            _note(request, use)
            if not fits:
                raise RateLimited(f"This key may send {counted(limit, 'request')} a minute.", use.reset)

    async def count_images(self, request: Request, images: int) -> None:
        """Count the images of a request that was let in; raises QuotaExceeded."""
        key: Key | None = request.state.key
        limit = (key.limits.images_per_day or self._defaults.images_per_day) if key else None
        if key is not None and limit is not None:
            use, fits = await self._count("images", RateLimitItemPerDay(limit), key.id, images)
            _note(request, use)
            if not fits:
                raise QuotaExceeded(f"This key may have {counted(limit, 'image')} a day; left: {use.left}.", use.reset)

    async def check_jobs(self, request: Request, job_id: str | None = None) -> None:
        """Return if the caller may have one more job open, the job `job_id`; raises QuotaExceeded."""
        key: Key | None = request.state.key
        limit = (key.limits.open_jobs or self._defaults.open_jobs) if key else None
        if key is None or limit is None:
            return
        jobs = await to_thread.run_sync(self._jobs.open_jobs)
        if sum(job.extra.get("caller") == key.id and job.id != job_id for job in jobs) >= limit:
            raise QuotaExceeded(f"This key may have {counted(limit, 'job')} open at the same time.", _JOBS_RETRY)

    @asynccontextmanager
    async def job_slot(self, request: Request, job_id: str | None = None) -> AsyncIterator[None]:
        """A block that only one submission of the caller is in at a time, so that no more jobs are made than allowed.

        Raises
        ------
        QuotaExceeded
            On entering: the key may have no more jobs (`job_id`, which may be there already, is not counted).
        Overloaded
            On entering: other submissions with this key take too long.
        """
        key: Key | None = request.state.key
        if key is None or (key.limits.open_jobs or self._defaults.open_jobs) is None:
            yield
            return
        slot = self._slots.setdefault(key.id, asyncio.Lock())
        async with slot, self._alone(key.id):
            await self.check_jobs(request, job_id)
            yield

    @asynccontextmanager
    async def _alone(self, key_id: str) -> AsyncIterator[None]:
        """A block that no other replica is in for this key; without Redis, this replica alone counts."""
        lock = Lock(
            Redis(connection_pool=self._connections),
            f"{PREFIX}limits:jobs:{key_id}",
            timeout=3 * _SLOT_SECONDS,
            sleep=0.05,
            blocking_timeout=_SLOT_SECONDS,
        )
        held = False
        try:
            held = await lock.acquire()
            if not held:
                raise Overloaded("Other jobs are being submitted with this key.", _JOBS_RETRY)
        except (TimeoutError, RedisError, OSError) as error:
            log.warning("open jobs are counted by this replica alone, as Redis fails: %s", error)
        try:
            yield
        finally:
            if held:
                with suppress(TimeoutError, RedisError, OSError):
                    await lock.release()

    async def close(self) -> None:
        """Give the connections back."""
        await self._connections.aclose()

    async def _count(self, what: str, item: RateLimitItem, key_id: str, cost: int) -> tuple[LimitUse, bool]:
        """Take `cost` of a limit, if there is so much left."""
        if time.monotonic() >= self._away_until:
            try:
                return await _take(self._shared, what, item, key_id, cost)
            except (TimeoutError, RedisError, OSError) as error:
                self._away_until = time.monotonic() + _AWAY_SECONDS
                log.warning("limits are counted by this replica alone, as Redis fails: %s", error)
        return await _take(self._own, what, item, key_id, cost)


class Counters(NamedTuple):
    """Sliding window: two counters, and the seconds until each is thrown away."""

    previous: int
    previous_seconds: float
    current: int
    current_seconds: float
    """Since a counter goes on as the previous one, up to twice a window's length."""

    def used(self, window: int) -> int:
        """How much of the limit is taken; of the previous counter, the part that still lies in the window."""
        return math.floor(self.previous * self.previous_seconds / window + self.current)

    def reset(self, window: int) -> float:
        """Seconds until less is taken, or the current counter becomes the previous one.

        The library's own figure (`get_window_stats`) is 0 where a window has just begun.
        """
        waits = [float(window)]
        if self.previous:
            waits.append(self.previous_seconds % (window / self.previous))
        if self.current:
            waits.append(self.current_seconds - window)
        return min(waits)


async def _take(
    limiter: SlidingWindowCounterRateLimiter, what: str, item: RateLimitItem, key_id: str, cost: int
) -> tuple[LimitUse, bool]:
    fits = await limiter.hit(item, what, key_id, cost=cost)
    storage = limiter.storage
    assert isinstance(storage, SlidingWindowCounterSupport), "both storages here are"
    window = item.get_expiry()
    counters = Counters(*await storage.get_sliding_window(item.key_for(what, key_id), window))
    left = max(0, item.amount - counters.used(window))
    return LimitUse(what, item.amount, window, left, max(1, math.ceil(counters.reset(window)))), fits


def _note(request: Request, use: LimitUse) -> None:
    request.state.uses = [*getattr(request.state, "uses", ()), use]
