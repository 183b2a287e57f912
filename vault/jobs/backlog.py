"""How much work waits, told from one listing and one question to Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vault.coordination.leases import Leases
from vault.jobs.ids import given_at
from vault.jobs.index import JobIndex
from vault.storage.object_store import ObjectStore


@dataclass(frozen=True)
class Backlog:
    """The open jobs at one moment."""

    queued: int
    """Jobs that nobody works on now."""
    running: int
    """Jobs that a worker works on."""
    oldest_seconds: float
    """Age of the oldest job of a model that no worker has taken up; 0 when there is none."""


def read(objects: ObjectStore, leases: Leases) -> Backlog:
    """The open jobs as they are now.

    Raises
    ------
    StoreUnavailable, RedisUnavailable
    """
    pairs = JobIndex(objects).open()
    holders = leases.holders(sorted({model for model, _ in pairs}))
    running = sum((holder := holders[model]) is not None and holder.job == job for model, job in pairs)
    waiting = [given_at(job) for model, job in pairs if holders[model] is None]
    return Backlog(len(pairs) - running, running, max(0.0, time.time() - min(waiting)) if waiting else 0.0)
