"""Channel between the processes that serve one address."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

log = logging.getLogger("engram.service")

FOLLOW_SECONDS = 5.0
"""How long a sibling may take to serve what this process serves; one that takes longer follows by itself."""
MEASURE_SECONDS = 1.0
"""How long a sibling may take to say what it has measured."""
_LINE = 64 * 2**10
_REMEMBERED = 4096
"""Models whose versions are known to be served by all."""

Question = Mapping[str, str]
Answering = Callable[[Question], Awaitable[bytes]]


class Siblings:
    """The other processes that serve one address, each with a Unix socket in one private folder.

    What a client was told by one process is so in all: `follow` returns when they serve it too. One that is dead, or
    starts at this moment, reads what is newest by itself.

    Parameters
    ----------
    folder
        Where the sockets are; None where there is one process alone.
    number
        Of this process.
    """

    def __init__(self, folder: Path | None = None, number: int = 0) -> None:
        self._folder = folder
        self._own = f"{number}.sock"
        self._answer: Answering | None = None
        self._server: asyncio.Server | None = None
        self._followed: OrderedDict[str, int | None] = OrderedDict()

    async def listen(self, answer: Answering) -> None:
        """Begin to answer the others' questions."""
        if self._folder is not None:
            self._answer = answer
            place = self._folder / self._own
            place.unlink(missing_ok=True)  # a predecessor's, which was killed
            self._server = await asyncio.start_unix_server(self._serve, str(place), limit=_LINE)

    async def close(self) -> None:
        """Answer no more."""
        if self._server is not None and self._folder is not None:
            self._server.close()
            (self._folder / self._own).unlink(missing_ok=True)

    async def follow(self, model: str, version: int | None) -> None:
        """Have the others serve a model as this process does: in this version, or None if it is gone."""
        if self._folder is None or (model in self._followed and self._followed[model] == version):
            return
        answers = await self._ask({"ask": "refresh", "model": model}, FOLLOW_SECONDS)
        if None not in answers:
            self._followed[model] = version
            self._followed.move_to_end(model)
            if len(self._followed) > _REMEMBERED:
                self._followed.popitem(last=False)

    async def reread_keys(self) -> None:
        """Have the others read the keys: one was made, or revoked."""
        await self._ask({"ask": "keys"}, FOLLOW_SECONDS)

    async def measured(self) -> list[bytes]:
        """What the others have measured, each in the text exposition format; those that do not answer are left out."""
        return [text for text in await self._ask({"ask": "metrics"}, MEASURE_SECONDS) if text is not None]

    async def _ask(self, question: Question, seconds: float) -> list[bytes | None]:
        """The answers of all that can be reached; None of one that is there but gave none in time."""
        if self._folder is None:
            return []
        others = sorted(path for path in self._folder.glob("*.sock") if path.name != self._own)
        answers = await asyncio.gather(*(self._asked(path, question, seconds) for path in others))
        return [answer for there, answer in answers if there]

    async def _asked(self, path: Path, question: Question, seconds: float) -> tuple[bool, bytes | None]:
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_unix_connection(str(path))
                try:
                    writer.write(json.dumps(question).encode() + b"\n")
                    return True, await reader.read() or None  # nothing where answering failed
                finally:
                    writer.close()
        except (ConnectionError, FileNotFoundError):
            return False, None  # it died, and is started again
        except TimeoutError:
            log.warning("process %s of this service does not answer within %g s", path.stem, seconds)
            return True, None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, ValueError):
                question = json.loads(await reader.readline())
                assert self._answer is not None, "it listens"
                writer.write(await self._answer(question))
                await writer.drain()
        finally:
            writer.close()  # also where answering failed: whoever asked must not wait for ever
