"""Whether the versions that answer can also be learned on: what only learning needs is read now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from anyio import CapacityLimiter, to_thread

from service.live import Loaded
from service.problems import Problem
from vault.errors import NotFound, Unreadable, VaultError
from vault.objects import Objects

log = logging.getLogger("engram.service")

_PASS_SECONDS = 1.0
"""Between two looks at which versions answer."""
_RETRY_SECONDS = 10.0
"""Until what was harmed is read again."""
_AGAIN_SECONDS = 86_400.0
"""Until what was whole is read again."""


@dataclass(frozen=True)
class _Read:
    """What came of reading one blob."""

    when: float
    error: VaultError | None

    def due(self) -> bool:
        """Whether it is to be read again."""
        return time.monotonic() - self.when >= (_AGAIN_SECONDS if self.error is None else _RETRY_SECONDS)


class Learnable:
    """Looks whether what the live versions keep for learning is whole, so that it is known before a job fails for it.

    Nothing of it is needed to answer, so it is read beside everything else, one blob at a time: each when a version
    that names it goes live, and once a day.

    Parameters
    ----------
    models
        The versions that answer.
    objects
        Where their parts are stored.
    """

    def __init__(self, models: Callable[[], list[Loaded]], objects: Objects) -> None:
        self._models = models
        self._objects = objects
        self._read: dict[str, _Read] = {}
        """By hash, of what live versions name."""
        self._alone = CapacityLimiter(1)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; to be called inside the event loop."""
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def problems(self, name: str) -> list[Problem]:
        """Why the version of a model that answers cannot be learned on; empty as far as it can, or none answers."""
        return [problem for loaded in self._models() if loaded.name == name for problem in self._of(loaded)]

    def troubled(self) -> set[str]:
        """The models that have such problems."""
        return {loaded.name for loaded in self._models() if self._of(loaded)}

    def _of(self, loaded: Loaded) -> list[Problem]:
        found = (self._read.get(sha) for sha in loaded.commit.kept)
        problems = (Problem.of(read.error, loaded.version) for read in found if read and read.error)
        return [replace(one, detail=f"{one.detail} It answers, but cannot be learned on.") for one in problems]

    async def _watch(self) -> None:
        while True:
            try:
                await self._look()
            except VaultError as error:
                log.warning("what learning needs cannot be read for now: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            await asyncio.sleep(_PASS_SECONDS)

    async def _look(self) -> None:
        """Read what was not read yet, or long ago; raises VaultError for what says nothing of the blob."""
        named = {sha: loaded.name for loaded in self._models() for sha in loaded.commit.kept}
        for sha in self._read.keys() - named.keys():
            del self._read[sha]
        for sha, name in named.items():
            known = self._read.get(sha)
            if known is None or known.due():
                error = await to_thread.run_sync(self._wrong, sha, limiter=self._alone, abandon_on_cancel=True)
                if error is not None and (known is None or known.error is None):
                    log.error("model %s cannot be learned on: %s", name, error, extra={"model": name})
                self._read[sha] = _Read(time.monotonic(), error)

    def _wrong(self, sha: str) -> VaultError | None:
        try:
            self._objects.get_blob(sha)
        except (Unreadable, NotFound) as error:
            return error
        return None
