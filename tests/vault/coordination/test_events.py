"""Tests of job events and version notices, also across restarts of Redis."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

from testing.servers.redis import RedisServer
from vault.coordination.events import LAST_ID, VersionNotice
from vault.settings import VaultSettings
from vault.vault import Vault

JobEvent = tuple[str, dict[str, Any]]

JOB = "0" * 32
LAST = {"state": "succeeded"}


async def collect(events: AsyncIterator[JobEvent], count: int | None = None) -> list[JobEvent]:
    """All events, or the first `count`, in a minute at most."""
    found: list[JobEvent] = []
    async with asyncio.timeout(60):
        async for event in events:
            found.append(event)
            if len(found) == count:
                break
    return found


async def follow(vault: Vault, last_id: str | None = None, count: int | None = None) -> list[JobEvent]:
    async with aclosing(vault.events.follow(JOB, last_id)) as events:
        return await collect(events, count)


@pytest.fixture
def fragile(own_redis: RedisServer, vault_settings: VaultSettings) -> Iterator[Vault]:
    """A vault whose Redis the test may stop."""
    with Vault.connect(vault_settings.model_copy(update={"redis_url": own_redis.url})) as vault:
        yield vault


def test_told_from_the_beginning_to_the_last(vault: Vault) -> None:
    published = [{"state": "running", "n": number} for number in range(250)] + [LAST]
    ids = [vault.events.publish(JOB, event) for event in published]
    vault.events.publish("f" * 32, {"state": "running", "of": "another"})
    assert asyncio.run(follow(vault)) == list(zip([*ids[:-1], LAST_ID], published, strict=True))


def test_taken_up_after_the_last_id(vault: Vault) -> None:
    ids = [vault.events.publish(JOB, {"n": number}) for number in range(5)]
    vault.events.publish(JOB, LAST)
    rest = asyncio.run(follow(vault, ids[2]))
    assert [event for _, event in rest] == [{"n": 3}, {"n": 4}, LAST]


@pytest.mark.parametrize("last_id", ["", "$", "nonsense", "1-2-3", "-1", "9" * 30])
def test_an_id_that_is_none_means_the_beginning(vault: Vault, last_id: str) -> None:
    vault.events.publish(JOB, LAST)
    assert [event for _, event in asyncio.run(follow(vault, last_id))] == [LAST]


def test_told_while_it_happens(vault: Vault) -> None:
    async def scene() -> list[JobEvent]:
        async with aclosing(vault.events.follow(JOB)) as events:
            task = asyncio.create_task(collect(events))
            for number in range(3):
                await asyncio.sleep(0.05)
                await asyncio.to_thread(vault.events.publish, JOB, {"n": number})
            await asyncio.to_thread(vault.events.publish, JOB, LAST)
            return await task

    assert [event for _, event in asyncio.run(scene())] == [{"n": 0}, {"n": 1}, {"n": 2}, LAST]


def test_leaving_early_or_being_cancelled_is_clean(vault: Vault) -> None:
    vault.events.publish(JOB, {"n": 0})

    async def scene() -> None:
        assert len(await follow(vault, count=1)) == 1
        async with aclosing(vault.events.follow(JOB)) as events, aclosing(vault.events.versions()) as notices:
            waiting = [asyncio.create_task(collect(events)), asyncio.create_task(anext(notices))]
            await asyncio.sleep(0.1)
            for task in waiting:
                task.cancel()
            assert all(
                isinstance(end, asyncio.CancelledError)
                for end in await asyncio.gather(*waiting, return_exceptions=True)
            )

    asyncio.run(scene())


@pytest.mark.parametrize("what", ["a job", "versions"])
def test_one_that_is_cancelled_at_any_moment_ends(vault: Vault, what: str) -> None:
    """Also while it waits for Redis, where a library may swallow the cancellation."""

    async def listen() -> None:
        events: AsyncGenerator[Any, None] = vault.events.follow(JOB) if what == "a job" else vault.events.versions()
        async with aclosing(events):
            async for _ in events:
                pass

    async def run(steps: int) -> None:
        task = asyncio.create_task(listen())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled(), f"it went on when it was cancelled after {steps} steps"

    for steps in range(60):
        asyncio.run(run(steps))


def test_a_lost_last_event_is_made_from_the_record(vault: Vault) -> None:
    first = vault.events.publish(JOB, {"n": 0})

    async def scene() -> list[JobEvent]:
        async with aclosing(vault.events.follow(JOB, first, over=lambda: LAST)) as events:
            return await collect(events)

    assert asyncio.run(scene()) == [(LAST_ID, LAST)]


def test_following_survives_a_redis_restart(own_redis: RedisServer, fragile: Vault) -> None:
    async def scene() -> list[JobEvent]:
        async with aclosing(fragile.events.follow(JOB)) as events:
            fragile.events.publish(JOB, {"n": 0})
            before = await collect(events, 1)
            waiting = asyncio.create_task(collect(events))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_redis.stop)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_redis.start)
            await asyncio.to_thread(fragile.events.publish, JOB, {"n": 1})
            await asyncio.to_thread(fragile.events.publish, JOB, LAST)
            return before + await waiting

    assert [event for _, event in asyncio.run(scene())] == [{"n": 0}, {"n": 1}, LAST]


def test_notices_survive_a_redis_restart(own_redis: RedisServer, fragile: Vault) -> None:
    async def next_of(notices: AsyncIterator[VersionNotice], version: int) -> VersionNotice:
        """Publish repeatedly, since notices sent before the subscription are lost."""
        waiting = asyncio.ensure_future(anext(notices))
        async with asyncio.timeout(60):
            while not waiting.done():
                await asyncio.to_thread(fragile.events.publish_version, "lines", version)
                await asyncio.wait([waiting], timeout=0.05)
        return waiting.result()

    async def scene() -> None:
        async with aclosing(fragile.events.versions()) as notices:
            assert await next_of(notices, 1) == VersionNotice("lines", 1)
            await asyncio.to_thread(own_redis.stop)
            await asyncio.to_thread(own_redis.start)
            while (await next_of(notices, 2)).version == 1:
                pass
            fragile.events.publish_deleted("lines")
            while not (notice := await asyncio.wait_for(anext(notices), 60)).deleted:
                pass
            assert notice == VersionNotice("lines", None)

    asyncio.run(scene())


def test_publishing_without_redis_is_no_failure_and_said_once(
    own_redis: RedisServer, fragile: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.stop()
    with caplog.at_level(logging.WARNING, "engram.vault"):
        for _ in range(3):
            assert fragile.events.publish(JOB, {"n": 0}) is None
            fragile.events.publish_version("lines", 1)
            fragile.events.publish_deleted("lines")
    assert [record.message.split(":")[0] for record in caplog.records] == ["events get lost"]
    own_redis.start()
    assert fragile.events.publish(JOB, {"n": 0}) is not None


def test_a_stream_is_bounded_and_passes_away(vault_settings: VaultSettings) -> None:
    settings = vault_settings.model_copy(update={"event_count": 100, "event_ttl_seconds": 1000})
    with Vault.connect(settings) as vault:
        for number in range(500):
            vault.events.publish(JOB, {"n": number})
        (key,) = vault.redis.keys("*")
        assert 100 <= vault.redis.xlen(key) < 300
        assert 900 < vault.redis.ttl(key) <= 1000
