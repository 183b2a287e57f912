"""A service that runs for weeks takes no more memory than it needs."""

from __future__ import annotations

import asyncio

from engram.runtime import give_back_freed_memory
from service.background import Background

_SECONDS = 60.0


class Trimming(Background):
    """Gives freed memory back to the system once a minute, beside everything else."""

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS)
            await asyncio.to_thread(give_back_freed_memory)
