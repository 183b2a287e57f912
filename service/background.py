"""Work that a service does beside everything else."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from contextlib import suppress

log = logging.getLogger("engram.service")

_AGAIN_SECONDS = 5.0
"""Until what ended by an error that nobody foresaw is begun anew."""


class Background(ABC):
    """Something that runs in the event loop from `start` to `close`, and never ends by itself.

    An error that nobody foresaw is logged, and the work is begun anew: were keys read no more, say, those revoked after
    that would let people in for ever.
    """

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; to be called inside the event loop."""
        self._task = asyncio.create_task(self._always())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @abstractmethod
    async def _run(self) -> None:
        """Do it, for ever."""

    async def _always(self) -> None:
        while True:
            try:
                await self._run()
            except Exception:
                log.exception("%s failed and is begun anew", type(self).__name__)
            await asyncio.sleep(_AGAIN_SECONDS)
