"""Tests of background tasks that fail and are begun anew."""

from __future__ import annotations

import asyncio

import pytest

from service.lifecycle import background
from service.lifecycle.background import Background


class Stumbling(Background):
    """Fails at every second beginning, and is cut off at the others."""

    def __init__(self) -> None:
        self.begun = 0
        self.cut_off = 0

    async def _run(self) -> None:
        self.begun += 1
        if self.begun % 2:
            raise RuntimeError("it stumbled")
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cut_off += 1
            raise


def test_what_fails_is_told_and_begun_anew_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "_AGAIN_SECONDS", 0.0)
    subject = Stumbling()

    async def run() -> None:
        await subject.close()
        subject.start()
        while subject.begun < 4:
            await asyncio.sleep(0)
        await subject.close()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert (subject.begun, subject.cut_off) == (4, 1)
    logged = [record for record in caplog.records if record.exc_info is not None]
    assert [record.getMessage() for record in logged] == ["Stumbling failed and is begun anew"] * 2
