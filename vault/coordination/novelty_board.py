"""Novelty reports of every replica on every model, and counts of its images by time, in Redis only.

They are lost when Redis is.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from vault.coordination.connection import PREFIX, redis_errors
from vault.errors import RedisUnavailable
from vault.storage.documents import encode

log = logging.getLogger("engram.vault")

TTL_SECONDS = 30
"""Lifetime of a report that is not written again; its replica then counts as gone."""


SPAN_SECONDS = 300
"""Length of the spans of time by which images are counted, from multiples of it on."""

SPANS = 288
"""Spans that are kept: those of a day."""


class SpanCounts(NamedTuple):
    """How many images were answered in a span of time, and how many of them were unknown."""

    samples: int = 0
    unknown: int = 0

    def plus(self, other: SpanCounts) -> SpanCounts:
        """Both together."""
        return SpanCounts(self.samples + other.samples, self.unknown + other.unknown)

    def minus(self, other: SpanCounts) -> SpanCounts:
        """What these have more than the others."""
        return SpanCounts(self.samples - other.samples, self.unknown - other.unknown)


class NoveltyBoard:
    """The latest report of each replica on each model; failures of Redis leave reports out and are logged once.

    Beside them are the counts of all replicas together, by spans of time, over all versions of a model.
    """

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

    def count(self, counts: Mapping[str, Mapping[int, SpanCounts]]) -> bool:
        """Add to the counts of models; returns whether Redis took them.

        Where its answer gets lost they may be in, and be added a second time.

        Parameters
        ----------
        counts
            By the model's lineage and the number of the span.
        """
        if not counts:
            return True
        try:
            with redis_errors(), self._redis.pipeline(transaction=True) as pipe:
                for lineage, spans in counts.items():
                    for span, one in spans.items():
                        key = _day(lineage, span // SPANS)
                        for field, more in zip(SpanCounts._fields, one, strict=True):
                            pipe.hincrby(key, f"{span} {field}", more)
                        pipe.expire(key, 2 * SPANS * SPAN_SECONDS)
                pipe.execute()
        except RedisUnavailable as error:
            self._lost(error)
            return False
        return True

    def counts(self, lineage: str, last: int) -> dict[int, SpanCounts] | None:
        """The counts of a model by the number of the span, of `SPANS` up to `last`; None when Redis does not answer."""
        try:
            with redis_errors(), self._redis.pipeline(transaction=False) as pipe:
                for day in (last // SPANS - 1, last // SPANS):
                    pipe.hgetall(_day(lineage, day))
                fields = {name: int(value) for day in pipe.execute() for name, value in day.items()}
        except RedisUnavailable as error:
            self._lost(error)
            return None
        spans = sorted({int(name.partition(" ")[0]) for name in fields})
        return {
            span: SpanCounts(*(fields.get(f"{span} {field}", 0) for field in SpanCounts._fields))
            for span in spans
            if last - SPANS < span <= last
        }

    def _lost(self, error: Exception) -> None:
        if not self._failing:
            log.warning("what replicas say of novelty gets lost: %s", error)
        self._failing = True


def _replicas(model: str) -> str:
    return f"{PREFIX}novelty:{model}"


def _report(model: str, replica: str) -> str:
    return f"{PREFIX}novelty:{model}:{replica}"


def _day(lineage: str, number: int) -> str:
    return f"{PREFIX}novelty-counts:{lineage}:{number}"
