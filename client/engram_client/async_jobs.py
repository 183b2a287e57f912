"""A job that was submitted, for asyncio: to be followed, waited for, or cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

import httpx

from engram_client import calls
from engram_client.delivery import Call, HttpAnswer
from engram_client.events import POLL_SECONDS, Following
from engram_client.jobs import FIRST_LOOK, check_time, succeeded
from engram_client.records import JobRecord, JobUpdate
from engram_client.settings import ClientSettings

Result = TypeVar("Result")


class AsyncJobSource(Protocol):
    """What a job needs of its client."""

    settings: ClientSettings

    async def run(self, call: Call[Result]) -> Result:
        """Make a call."""

    def streaming(self, path: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        """An answer that is read while it comes."""


class AsyncLearningJob:
    """One job of a service."""

    def __init__(self, client: AsyncJobSource, record: JobRecord) -> None:
        self._client = client
        self.record = record
        """The job as it was last seen."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.record.state})"

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    async def refresh(self) -> JobRecord:
        """Look at the job."""
        self.record = await self._client.run(calls.job(self.id))
        return self.record

    async def cancel(self) -> JobRecord:
        """Ask for its end; raises StateRefused (`job_over`) when it has ended already."""
        self.record = await self._client.run(calls.cancel_job(self.id))
        return self.record

    async def follow(self) -> AsyncIterator[JobUpdate]:
        """Its events from the beginning, as they come, up to its last one; `result` then tells how it ended.

        A stream that breaks off is taken up where it was; where no stream is to be had, the job is asked for every
        second.
        """
        following = Following(self._client.settings.patience.seconds)
        while not following.over:
            if following.polling:
                if (update := following.polled(await self.refresh())) is not None:
                    yield update
            else:
                async for update in self._stream(following):
                    yield update
            if not following.over:
                await asyncio.sleep(following.pause)
        await self.refresh()

    async def result(self, timeout: float | None = None) -> JobRecord:
        """Wait for its end, and return the job with its `version`.

        Raises
        ------
        JobFailed
            It ended without a version; JobCancelled where it was cancelled.
        TimeoutError
            It has not ended in so many seconds; it goes on.
        """
        until = None if timeout is None else time.monotonic() + timeout
        pause = FIRST_LOOK
        while not (await self.refresh()).over:
            check_time(self.id, until, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS)
        return succeeded(self.record)

    async def _stream(self, following: Following) -> AsyncIterator[JobUpdate]:
        """The events of one connection."""
        try:
            async with self._client.streaming(calls.events_path(self.id), following.headers) as response:
                if response.status_code != 200:
                    content = await response.aread()
                    following.refused(HttpAnswer(response.status_code, response.headers, content))
                    return
                async for line in response.aiter_lines():
                    if (update := following.line(line)) is not None:
                        yield update
                    if following.over:
                        return
        except httpx.RequestError as error:
            following.broken(error)
        else:
            following.broken()
