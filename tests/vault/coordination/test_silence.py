"""Tests of connections that fall silent without being closed: what waits on them comes back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from testing.servers.redis import RedisServer
from testing.servers.silent_proxy import SilentProxy
from vault.coordination import connection, events
from vault.coordination.connection import reachable
from vault.coordination.events import VersionNotice
from vault.errors import RedisUnavailable
from vault.settings import VaultSettings
from vault.vault import Vault

JOB = "0" * 32
LAST = {"state": "succeeded"}


@pytest.fixture(params=[False, True], ids=["tcp", "unix"])
def proxy(own_redis: RedisServer, request: pytest.FixtureRequest) -> Iterator[SilentProxy]:
    proxy = SilentProxy(own_redis.socket, unix=request.param)
    yield proxy
    proxy.close()


@pytest.fixture
def behind(proxy: SilentProxy, vault_settings: VaultSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Vault]:
    """A vault whose Redis is behind the proxy, and that loses patience sooner than it would."""
    monkeypatch.setattr(connection, "_ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(events, "_ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(events, "_SILENT_SECONDS", 0.5)
    with Vault.connect(vault_settings.model_copy(update={"redis_url": proxy.url})) as vault:
        yield vault


@pytest.fixture
def beside(own_redis: RedisServer, vault_settings: VaultSettings) -> Iterator[Vault]:
    """A vault that reaches the same Redis by another way."""
    with Vault.connect(vault_settings.model_copy(update={"redis_url": own_redis.url})) as vault:
        yield vault


async def told(notices: AsyncIterator[VersionNotice], beside: Vault, version: int) -> None:
    """Publish until the notice comes, as those sent before the subscription are lost."""
    async with asyncio.timeout(60):
        while True:
            waiting = asyncio.ensure_future(anext(notices))
            while not waiting.done():
                await asyncio.to_thread(beside.events.publish_version, "lines", version)
                await asyncio.wait([waiting], timeout=0.05)
            if waiting.result() == VersionNotice("lines", version):
                return


def test_notices_come_back_when_their_connection_is_dead_for_ever(
    proxy: SilentProxy, behind: Vault, beside: Vault
) -> None:
    async def scene() -> None:
        async with aclosing(behind.events.versions()) as notices:
            await told(notices, beside, 1)
            proxy.fall_silent()
            proxy.speak(old=False)
            await told(notices, beside, 2)

    asyncio.run(scene())


def test_a_quiet_connection_that_answers_is_kept(proxy: SilentProxy, behind: Vault, beside: Vault) -> None:
    async def scene() -> None:
        async with aclosing(behind.events.versions()) as notices:
            await told(notices, beside, 1)
            accepted = proxy.accepted
            waiting = asyncio.ensure_future(anext(notices))
            await asyncio.sleep(2.5)  # several times as long as until Redis is asked whether it is there
            assert proxy.accepted == accepted
            beside.redis.publish("engram:versions", '{"model": "lines", "version": 2}')  # once: nothing may be lost
            async with asyncio.timeout(60):
                while (await waiting).version == 1:
                    waiting = asyncio.ensure_future(anext(notices))

    asyncio.run(scene())


def test_following_a_job_goes_on_when_its_connection_is_dead_for_ever(
    proxy: SilentProxy, behind: Vault, beside: Vault
) -> None:
    async def scene() -> list[dict[str, object]]:
        found: list[dict[str, object]] = []
        followed: AsyncGenerator[tuple[str, dict[str, object]], None] = behind.events.follow(JOB)
        async with asyncio.timeout(60), aclosing(followed):
            beside.events.publish(JOB, {"n": 0})
            async for _, event in followed:
                found.append(event)
                if event == {"n": 0}:
                    proxy.fall_silent()
                    proxy.speak(old=False)
                    beside.events.publish(JOB, LAST)
        return found

    assert asyncio.run(scene()) == [{"n": 0}, LAST]


def test_commands_fail_in_time_while_nothing_is_passed_on_and_work_afterwards(
    proxy: SilentProxy, behind: Vault
) -> None:
    lease = behind.leases.acquire("lines", "worker")
    assert lease is not None
    proxy.fall_silent()
    with pytest.raises(RedisUnavailable):
        behind.leases.holder("lines")
    assert not reachable(proxy.url)
    proxy.speak(old=False)
    holder = behind.leases.holder("lines")
    assert holder is not None
    assert holder.owner == "worker"
    lease.renew()
    assert reachable(proxy.url)
