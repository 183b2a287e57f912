"""Server-sent event streams of jobs, bounded in number and ended when the process stops."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import TypeVar

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send

from service.errors.exceptions import Stopping
from service.errors.problem_details import traceback_of
from service.metrics import Metrics
from service.middleware.limiter import Limiter, full
from service.settings import ServiceSettings

log = logging.getLogger("engram.service")

Event = TypeVar("Event")

# By itself it would break every stream off, amid its answer, within half a second after the signal to stop, whether or
# not `EventStreams.end` was called by then.
AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # it has no annotations

_AHEAD = 16
"""Events that are fetched before the client has taken those before them."""


class EventStreams:
    """Open event streams, limited all together and for each job. For one event loop."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._limiter = Limiter(
            metrics, "events", "event streams", settings.event_clients, settings.retry_after_seconds
        )
        self._by_job: Counter[str] = Counter()
        self._sources: set[asyncio.Task[None]] = set()
        self._ended = False

    @property
    def open(self) -> int:
        """How many there are."""
        return self._limiter.taken

    @contextmanager
    def held(self, job: str) -> Iterator[None]:
        """A block in which one more stream of `job` is open.

        Raises
        ------
        Overloaded, Stopping
        """
        if self._ended:
            raise Stopping("The service stops; another replica goes on.")
        if self._by_job[job] >= self._settings.event_clients_per_job:
            refusal = self._limiter.refusal()
            most = self._settings.event_clients_per_job
            raise full("event streams of this job", self._by_job[job], most, refusal.retry_after)
        with self._limiter.held():
            self._by_job[job] += 1
            try:
                yield
            finally:
                self._by_job[job] -= 1
                if not self._by_job[job]:
                    del self._by_job[job]

    async def until_the_end(self, events: AsyncGenerator[Event, None]) -> AsyncIterator[Event]:
        """`events`, as long as the process goes on."""
        send, receive = anyio.create_memory_object_stream[Event](_AHEAD)
        # A task of its own, so that the events are closed by whom they are fetched by.
        source = asyncio.create_task(_fetch(events, send))
        self._sources.add(source)
        source.add_done_callback(self._sources.discard)
        # One that is cancelled before it has begun to run closes nothing itself.
        source.add_done_callback(lambda _: send.close())
        if self._ended:  # since it got its place
            source.cancel()
        try:
            async with receive:
                async for event in receive:
                    yield event
        finally:
            source.cancel()

    def end(self) -> None:
        """Let every stream end after what was fetched for it, and open none any more."""
        self._ended = True
        for source in self._sources:
            source.cancel()


async def _fetch(events: AsyncGenerator[Event, None], send: MemoryObjectSendStream[Event]) -> None:
    try:
        async with send, aclosing(events):
            async for event in events:
                await send.send(event)
    except anyio.BrokenResourceError:
        pass  # nobody listens any more
    except Exception as error:
        log.error("an event stream breaks off: %s", error, exc_info=traceback_of(error))


class EventStream(EventSourceResponse):
    """Response that streams the events of a job; refused when it begins while too many are open."""

    def __init__(
        self, streams: EventStreams, job: str, events: AsyncGenerator[ServerSentEvent, None], ping_seconds: float
    ) -> None:
        super().__init__(streams.until_the_end(events), ping=ping_seconds)
        self._streams = streams
        self._job = job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.held(self._job):
            await super().__call__(scope, receive, send)
