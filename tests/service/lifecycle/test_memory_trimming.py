"""Tests of giving freed memory back, for as long as the service runs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.lifecycle import background
from service.lifecycle.background import MemoryTrimmer
from testing.servers.service import PATIENCE


def test_it_goes_on_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[threading.Thread] = []
    monkeypatch.setattr(background, "_TRIM_SECONDS", 0.01)
    monkeypatch.setattr(background, "give_back_freed_memory", lambda: given.append(threading.current_thread()))

    async def run() -> None:
        subject = MemoryTrimmer()
        await subject.close()
        subject.start()
        while len(given) < 3:
            await asyncio.sleep(0.01)
        await subject.close()
        count = len(given)
        await asyncio.sleep(0.3)
        assert len(given) <= count + 1  # which was under way

    asyncio.run(asyncio.wait_for(run(), PATIENCE))
    assert threading.main_thread() not in given, "nobody waits for it"
