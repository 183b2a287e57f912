"""Leases of models in Redis, renewed by a heartbeat."""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import redis

from vault.coordination.connection import PREFIX, redis_errors
from vault.errors import LeaseLost, RedisUnavailable
from vault.timestamps import now

log = logging.getLogger("engram.vault")

# KEYS: lease. ARGV: the holder's secret, the new value, milliseconds. A lease without a holder is taken again, since
# Redis may have lost it.
_RENEW = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).secret ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_RELEASE = """
local held = redis.call('GET', KEYS[1])
if held and cjson.decode(held).secret == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
"""


@dataclass(frozen=True)
class LeaseHolder:
    """Holder of a lease."""

    owner: str
    job: str | None
    """The job in progress; None between two jobs."""
    since: str
    """RFC 3339, UTC."""


class Lease:
    """The exclusive right to work on one model, as long as it is renewed.

    It keeps two workers from doing the same work. It does not stop a worker that was suspended past the lease and goes
    on afterwards; the attempt's number, the fencing token, does (`Jobs.check_token`).

    As a context manager it renews itself from a thread and is released at the end.
    """

    def __init__(self, client: redis.Redis, model: str, holder: LeaseHolder, seconds: float) -> None:
        self.model = model
        self.lost = threading.Event()
        """Set by the heartbeat when another owner holds the lease."""
        self.forgotten = False
        """Whether it was lost although it was always renewed in time: Redis lost it."""
        self._redis = client
        self._key = _key(model)
        self._milliseconds = max(1, round(seconds * 1000))
        self._secret = uuid.uuid4().hex
        self._holder = holder
        self._lock = threading.Lock()

    @property
    def holder(self) -> LeaseHolder:
        """The holder, as written in the lease."""
        return self._holder

    def renew(self) -> None:
        """Renew for `lease_seconds` from now; a lease that Redis lost and nobody else has is taken again.

        Raises
        ------
        LeaseLost
            Another owner has it.
        RedisUnavailable
            Nobody can take it meanwhile; the caller should try again.
        """
        with self._lock:
            self._write(self._holder)

    def assign(self, job: str | None) -> None:
        """Name the job in progress, and renew; raises as `renew`."""
        with self._lock:
            self._write(LeaseHolder(self._holder.owner, job, now()))

    def release(self) -> None:
        """Release the lease; one that is lost or was released already is left alone. Never raises."""
        with self._lock:
            try:
                with redis_errors():
                    self._redis.eval(_RELEASE, 1, self._key, self._secret)
            except RedisUnavailable as error:
                log.warning("the lease of %s could not be given back and will expire: %s", self.model, error)

    @contextmanager
    def heartbeat(self) -> Iterator[Lease]:
        """Inside, a thread renews the lease every third of its duration; `lost` is set when another owner has it."""
        over = threading.Event()
        thread = threading.Thread(target=self._beat, args=(over,), name=f"lease-{self.model}", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            over.set()
            thread.join()

    def __enter__(self) -> Self:
        self._beating = self.heartbeat()
        self._beating.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beating.__exit__(kind, error, trace)
        self.release()

    def _take(self) -> bool:
        """Set the lease if nobody has it."""
        value = self._value(self._holder)
        with redis_errors():
            if self._redis.set(self._key, value, nx=True, px=self._milliseconds):
                return True
            # The reply to a first try may have got lost: then the lease is held by ourselves.
            return bool(self._redis.get(self._key) == value)

    def _write(self, holder: LeaseHolder) -> None:
        with redis_errors():
            held = self._redis.eval(_RENEW, 1, self._key, self._secret, self._value(holder), str(self._milliseconds))
        if not held:
            raise LeaseLost(f"Another worker has the lease of the model {self.model}.")
        self._holder = holder

    def _value(self, holder: LeaseHolder) -> str:
        document = {"owner": holder.owner, "job": holder.job, "since": holder.since, "secret": self._secret}
        return json.dumps(document)

    def _beat(self, over: threading.Event) -> None:
        interval = self._milliseconds / 3000
        since = time.monotonic()
        while not over.wait(interval):
            late = time.monotonic() - since > self._milliseconds / 1000
            try:
                self.renew()
                interval = self._milliseconds / 3000
            except LeaseLost:
                log.warning("the lease of %s is lost", self.model)
                self.forgotten = not late
                self.lost.set()
                return
            except RedisUnavailable as error:
                log.warning("the lease of %s could not be renewed: %s", self.model, error)
                interval = min(interval, 1.0)
            since = time.monotonic()


class Leases:
    """The leases of all models: at most one holder each, unless Redis loses them."""

    def __init__(self, client: redis.Redis, seconds: float) -> None:
        self._redis = client
        self._seconds = seconds

    def acquire(self, model: str, owner: str, job: str | None = None) -> Lease | None:
        """Take the lease of a model; None when another has it.

        Raises
        ------
        RedisUnavailable
        """
        lease = Lease(self._redis, model, LeaseHolder(owner, job, now()), self._seconds)
        return lease if lease._take() else None

    def holder(self, model: str) -> LeaseHolder | None:
        """The holder of a model's lease; raises RedisUnavailable."""
        return self.holders([model])[model]

    def holders(self, models: list[str]) -> dict[str, LeaseHolder | None]:
        """The holder of each model's lease, in one request; raises RedisUnavailable."""
        if not models:
            return {}
        with redis_errors():
            values = self._redis.mget([_key(model) for model in models])
        return {model: _read(value) for model, value in zip(models, values, strict=True)}


def _key(model: str) -> str:
    return f"{PREFIX}lease:{model}"


def _read(value: str | bytes | None) -> LeaseHolder | None:
    if value is None:
        return None
    document = json.loads(value)
    return LeaseHolder(document["owner"], document["job"], document["since"])
