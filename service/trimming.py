"""A service that runs for weeks takes no more memory than it needs."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from engram.runtime import give_back_freed_memory

_SECONDS = 60.0


class Trimming:
    """Gives freed memory back to the system once a minute, beside everything else."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; to be called inside the event loop."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            await asyncio.to_thread(give_back_freed_memory)
