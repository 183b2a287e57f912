"""Events of jobs in Redis streams, and notices of new versions."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import RedisError

from vault.coordination.connection import PREFIX, connect_async, redis_errors
from vault.errors import RedisUnavailable, VaultError
from vault.storage.documents import encode

log = logging.getLogger("engram.vault")

FINAL = frozenset({"succeeded", "failed", "cancelled"})
"""States that end a job; an event with such a `state` is the job's last."""

LAST_ID = "end"
"""Id of a job's last event, whether it comes from Redis or from the job's record: Redis may have lost its own id."""

_CHANNEL = f"{PREFIX}versions"
_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
_BLOCK_MILLISECONDS = 2000
_ANSWER_SECONDS = 10.0
"""Until a connection that says nothing counts as dead: it may have been lost without a word."""
_SILENT_SECONDS = 5.0
"""Without a notice, until Redis is asked whether it is still there; once more as long, and the connection is dead."""
_PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class VersionNotice:
    """Notice that a model has a new version, or was deleted."""

    model: str
    version: int | None
    """None when the model was deleted."""

    @property
    def deleted(self) -> bool:
        return self.version is None


class Events:
    """Publisher and reader of events and notices.

    Publishing never fails: an event that Redis cannot take is lost, which is logged once. Events are no record of the
    truth, so readers must read the job's or model's record from time to time.
    """

    def __init__(self, client: redis.Redis, url: str, ttl_seconds: int, count: int) -> None:
        self._redis = client
        self._url = url
        self._ttl = ttl_seconds
        self._count = count
        self._failing = False

    def publish(self, job_id: str, event: Mapping[str, Any]) -> str | None:
        """Add an event to a job's stream; returns its id, None if it got lost."""
        key = _stream(job_id)
        try:
            with redis_errors(), self._redis.pipeline(transaction=False) as pipe:
                pipe.xadd(key, {"event": encode(event)}, maxlen=self._count, approximate=True)
                pipe.expire(key, self._ttl)
                added = pipe.execute()[0]
        except RedisUnavailable as error:
            self._lost(error)
            return None
        self._failing = False
        return str(added)

    def publish_version(self, model: str, version: int) -> None:
        """Notify every service of a new version."""
        self._notify({"model": model, "version": version})

    def publish_deleted(self, model: str) -> None:
        """Notify every service that a model was deleted."""
        self._notify({"model": model, "version": None})

    async def follow(
        self,
        job_id: str,
        last_id: str | None = None,
        over: Callable[[], Mapping[str, Any] | None] | None = None,
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """The events of a job after the id `last_id`, as (id, event), up to the one with a final `state` and `LAST_ID`.

        It survives restarts of Redis. Use `contextlib.aclosing` around it when the loop may be left early.

        Parameters
        ----------
        last_id
            None, or an id that no event in Redis has, means from the beginning. Callers must not ask for what comes
            after `LAST_ID`.
        over
            Called in a thread after two seconds without an event (`Jobs.last_event`): returns the last event if the
            job's record says that it is over, else None. So the iteration also ends when Redis lost the stream.
        """
        position = last_id if last_id and _ID.fullmatch(last_id) else "0"
        failures = 0
        client = connect_async(self._url)
        try:
            while True:
                try:
                    async with asyncio.timeout(_ANSWER_SECONDS):
                        answer = await client.xread({_stream(job_id): position}, block=_BLOCK_MILLISECONDS, count=100)
                    failures = 0
                except (RedisError, OSError):
                    await asyncio.sleep(_pause(failures))
                    failures += 1
                    answer = []
                for position, event in _entries(answer):
                    if event.get("state") in FINAL:
                        yield LAST_ID, event
                        return
                    yield position, event
                if not answer and over is not None and (last := await _ask(over)) is not None:
                    yield LAST_ID, dict(last)
                    return
        finally:
            await client.aclose()

    async def versions(self, hearing: Callable[[bool], None] = lambda _: None) -> AsyncGenerator[VersionNotice, None]:
        """Endless notices from now on. Those sent while Redis or the connection is down are lost.

        Use `contextlib.aclosing` around it when the loop may be left early.

        Parameters
        ----------
        hearing
            Called with whether notices are heard, whenever that changes.
        """
        failures = 0
        heard_before = False
        while True:
            client = connect_async(self._url)
            listener = client.pubsub()
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await listener.subscribe(_CHANNEL)
                async with aclosing(_heard(listener)) as heard:
                    async for message in heard:
                        failures = 0
                        if message["type"] == "message":
                            yield _notice(message["data"])
                        elif not heard_before:
                            heard_before = True
                            hearing(True)
            except (RedisError, OSError):
                await asyncio.sleep(_pause(failures))
                failures += 1
            finally:
                heard_before = False
                hearing(False)
                await listener.aclose()  # type: ignore[no-untyped-call] # redis-py leaves it without annotations
                await client.aclose()

    def _notify(self, document: Mapping[str, Any]) -> None:
        try:
            with redis_errors():
                self._redis.publish(_CHANNEL, json.dumps(document))
        except RedisUnavailable as error:
            self._lost(error)
        else:
            self._failing = False

    def _lost(self, error: Exception) -> None:
        if not self._failing:
            log.warning("events get lost: %s", error)
        self._failing = True


async def _heard(listener: redis.asyncio.client.PubSub) -> AsyncGenerator[dict[str, Any], None]:
    """Messages of a subscribed connection, confirmations of its subscription among them.

    Raises
    ------
    TimeoutError
        Redis confirms nothing any more.
    """
    asked = False
    while True:
        async with asyncio.timeout(_ANSWER_SECONDS):
            message = await listener.get_message(timeout=_SILENT_SECONDS)
        if message is not None:
            asked = False
            yield message
        elif asked:
            raise TimeoutError("Redis does not confirm a subscription")
        else:
            # Subscribing again changes nothing and is answered; the client library cannot tell answers to pings from
            # messages in every version of the protocol.
            async with asyncio.timeout(_ANSWER_SECONDS):
                await listener.subscribe(_CHANNEL)
            asked = True


async def _ask(over: Callable[[], Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
    try:
        return await asyncio.to_thread(over)
    except VaultError as error:
        log.warning("a followed job cannot be looked up: %s", error)
        return None


def _stream(job_id: str) -> str:
    return f"{PREFIX}events:{job_id}"


def _pause(failures: int) -> float:
    return _PAUSES[min(failures, len(_PAUSES) - 1)]


def _entries(answer: Any) -> list[tuple[str, dict[str, Any]]]:
    # RESP2 answers with a list of [stream, entries], RESP3 with a dict of them.
    streams = answer.items() if isinstance(answer, dict) else answer
    found: list[tuple[str, dict[str, Any]]] = []
    for _, batches in streams:
        entries = batches[0] if batches and isinstance(batches[0], list) else batches
        found.extend((name, json.loads(fields["event"])) for name, fields in entries)
    return found


def _notice(data: str) -> VersionNotice:
    document = json.loads(data)
    return VersionNotice(document["model"], document["version"])
