"""Novelty reports of every replica on every model, in Redis only.

They are lost when Redis is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import redis

from vault.coordination.connection import PREFIX, redis_errors
from vault.errors import RedisUnavailable
from vault.storage.documents import encode

log = logging.getLogger("engram.vault")

TTL_SECONDS = 30
"""Lifetime of a report that is not written again; its replica then counts as gone."""


class NoveltyBoard:
    """The latest report of each replica on each model; failures of Redis leave reports out and are logged once."""

    def __init__(self, client: redis.Redis, ttl_seconds: float = TTL_SECONDS) -> None:
        self._redis = client
        self._milliseconds = round(ttl_seconds * 1000)
        self._failing = False

    def write(self, replica: str, reports: Mapping[str, Mapping[str, Any]]) -> bool:
        """Replace a replica's reports on the given models; returns whether Redis took them."""
        if not reports:
            return True
        try:
            with redis_errors(), self._redis.pipeline(transaction=False) as pipe:
                for model, report in reports.items():
                    pipe.set(_report(model, replica), encode(report), px=self._milliseconds)
                    pipe.sadd(_replicas(model), replica)
                    pipe.pexpire(_replicas(model), self._milliseconds)
                pipe.execute()
        except RedisUnavailable as error:
            self._lost(error)
            return False
        self._failing = False
        return True

    def read(self, model: str) -> dict[str, dict[str, Any]]:
        """The reports on a model by replica; empty when Redis does not answer."""
        return self.read_all([model])[model]

    def read_all(self, models: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """The reports on each of these models by replica, in two turns with Redis; empty when it does not answer."""
        found: dict[str, dict[str, dict[str, Any]]] = {model: {} for model in models}
        try:
            with redis_errors():
                asked = list(self._writers(models))
                texts = self._redis.mget([_report(model, replica) for model, replica in asked]) if asked else []
                told = list(zip(asked, texts, strict=True))
                gone = [(model, replica) for (model, replica), text in told if text is None]
                if gone:
                    with self._redis.pipeline(transaction=False) as pipe:
                        for model, replica in gone:
                            pipe.srem(_replicas(model), replica)
                        pipe.execute()
        except RedisUnavailable as error:
            self._lost(error)
            return found
        for (model, replica), text in told:
            if text is not None:
                found[model][replica] = json.loads(text)
        return found

    def _writers(self, models: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Each of these models with each replica that has reported on it."""
        with self._redis.pipeline(transaction=False) as pipe:
            for model in models:
                pipe.smembers(_replicas(model))
            answers = pipe.execute()
        for model, replicas in zip(models, answers, strict=True):
            yield from ((model, str(replica)) for replica in sorted(replicas))

    def clear(self, replica: str, models: Iterable[str]) -> None:
        """Withdraw a replica's reports on the given models."""
        try:
            with redis_errors(), self._redis.pipeline(transaction=False) as pipe:
                for model in models:
                    pipe.delete(_report(model, replica))
                    pipe.srem(_replicas(model), replica)
                pipe.execute()
        except RedisUnavailable as error:
            self._lost(error)

    def _lost(self, error: Exception) -> None:
        if not self._failing:
            log.warning("what replicas say of novelty gets lost: %s", error)
        self._failing = True


def _replicas(model: str) -> str:
    return f"{PREFIX}novelty:{model}"


def _report(model: str, replica: str) -> str:
    return f"{PREFIX}novelty:{model}:{replica}"
