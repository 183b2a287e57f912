"""Progress of running jobs, in Redis only.

It is lost when Redis is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

import redis

from vault.coordination.connection import PREFIX, redis_errors
from vault.errors import RedisUnavailable
from vault.storage.documents import encode

log = logging.getLogger("engram.vault")


class ProgressBoard:
    """The latest figures of each job; failures of Redis leave figures out and are logged once."""

    def __init__(self, client: redis.Redis, ttl_seconds: int) -> None:
        self._redis = client
        self._ttl = ttl_seconds
        self._failing = False

    def write(self, job_id: str, figures: Mapping[str, Any]) -> None:
        """Replace a job's figures."""
        try:
            with redis_errors():
                self._redis.set(_key(job_id), encode(figures), ex=self._ttl)
            self._failing = False
        except RedisUnavailable as error:
            self._lost(error)

    def read(self, job_id: str) -> dict[str, Any]:
        """A job's figures; empty when there are none."""
        try:
            with redis_errors():
                text = self._redis.get(_key(job_id))
        except RedisUnavailable as error:
            self._lost(error)
            return {}
        return dict(json.loads(text)) if text else {}

    def clear(self, job_id: str) -> None:
        """Remove a job's figures."""
        try:
            with redis_errors():
                self._redis.delete(_key(job_id))
        except RedisUnavailable as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not self._failing:
            log.warning("progress gets lost: %s", error)
        self._failing = True


def _key(job_id: str) -> str:
    return f"{PREFIX}progress:{job_id}"
