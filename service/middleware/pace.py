"""Minimum rate at which a body has to come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from types import coroutine
from typing import Any

from starlette.types import Message, Receive

from service.errors.exceptions import SlowRequest


class Pace:
    """Minimum rate of a body: `least` bytes in any `seconds` of waiting for them.

    The time in which nobody waits for them does not count.
    """

    def __init__(self, least: int, seconds: float) -> None:
        self._least = least
        self._seconds = seconds
        self._bytes = 0
        self._waited = 0.0

    def came(self, size: int) -> None:
        """So many bytes were received."""
        self._bytes += size

    async def keep(self, receive: Receive) -> Message:
        """What `receive` gives; raises SlowRequest."""
        while True:
            if self._waited >= self._seconds:
                self._next_window()
            step = receive().__await__()
            try:
                first = next(step)
            except StopIteration as given:  # it was there already, as most bodies are: a timer would cost more
                return given.value  # type: ignore[no-any-return]
            began = time.monotonic()
            try:
                async with asyncio.timeout(self._seconds - self._waited):
                    return await _rest(step, first)
            except TimeoutError:
                continue
            finally:
                self._waited += time.monotonic() - began

    def _next_window(self) -> None:
        if self._bytes < self._least:
            raise SlowRequest(f"Fewer than {self._least} bytes of the body came within {self._seconds:g} seconds.")
        self._bytes = 0
        self._waited = 0.0


@coroutine
def _rest(step: Generator[Any, Any, Message], waited: Any) -> Generator[Any, Any, Message]:
    """What an awaitable gives that was begun and waits for something."""
    try:
        while True:
            try:
                found = yield waited
            except BaseException as error:
                waited = step.throw(error)
            else:
                waited = step.send(found)
    except StopIteration as given:
        return given.value  # type: ignore[no-any-return]
