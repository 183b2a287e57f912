"""Tests of event streams that end when the process does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from sse_starlette.sse import AppStatus

from service.jobs.event_streams import EventStreams
from service.metrics import Metrics
from service.settings import ServiceSettings


async def endless() -> AsyncGenerator[int, None]:
    """One event, and then none for ever."""
    yield 1
    await asyncio.Event().wait()


@pytest.mark.parametrize("steps", range(6))
def test_a_stream_ends_in_order_whenever_the_process_stops(steps: int) -> None:
    """So many steps of the event loop after it began, from before its first one on."""

    async def followed() -> list[int]:
        streams = EventStreams(ServiceSettings(), Metrics())

        async def follow() -> list[int]:
            with streams.held("job"):
                await asyncio.sleep(0)
                return [event async for event in streams.until_the_end(endless())]

        following = asyncio.create_task(follow())
        await asyncio.sleep(0)
        for _ in range(steps):
            await asyncio.sleep(0)
        streams.end()
        return await asyncio.wait_for(following, 60)

    assert asyncio.run(followed()) in ([], [1])


def test_nobody_else_breaks_a_stream_off() -> None:
    assert not AppStatus.enable_automatic_graceful_drain
