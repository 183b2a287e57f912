"""Tests of the channel between processes: what failed is no answer, and nobody waits for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from service.lifecycle.siblings import FOLLOW_SECONDS, Question, Siblings


def test_an_answer_that_fails_is_asked_for_again(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(question: Question) -> bytes:
        asked.append(question["model"])
        if len(asked) == 1:
            raise RuntimeError("the first one fails")
        return b"done"

    async def run() -> float:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, __: None)  # it is raised into the server, which logs it
        one, other = Siblings(tmp_path, 0), Siblings(tmp_path, 1)
        await other.listen(answer)
        began = time.monotonic()
        for _ in range(3):
            await one.follow("digits", 1)
        seconds = time.monotonic() - began
        await other.close()
        await one.follow("digits", 2)  # nobody is there any more
        return seconds

    assert asyncio.run(run()) < FOLLOW_SECONDS
    assert asked == ["digits", "digits"], "once more after the failure, and not once it was followed"
