"""Backlog of open jobs, from one listing and one request to Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vault.coordination.leases import Leases
from vault.jobs.ids import issued_at
from vault.jobs.index import JobIndex
from vault.storage.object_store import ObjectStore


@dataclass(frozen=True)
class Backlog:
    """Numbers of open jobs at one moment, and the age of the oldest waiting one."""

    queued: int
    """Jobs without a worker."""
    running: int
    """Jobs with a worker."""
    oldest_seconds: float
    """Age of the oldest job that nobody works on, nor on one of its model before it; 0 when there is none."""


def read(objects: ObjectStore, leases: Leases) -> Backlog:
    """The current backlog.

    Raises
    ------
    StoreUnavailable, RedisUnavailable
    """
    jobs = JobIndex(objects).open()
    holders = leases.holders(sorted({job.lease for job in jobs}))
    running = sum((holder := holders[job.lease]) is not None and holder.job == job.id for job in jobs)
    waiting = [issued_at(job.id) for job in jobs if holders[job.lease] is None]
    return Backlog(len(jobs) - running, running, max(0.0, time.time() - min(waiting)) if waiting else 0.0)
