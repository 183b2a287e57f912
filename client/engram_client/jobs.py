"""A job that was submitted: to be followed, waited for, or cancelled."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import httpx

from engram_client import calls
from engram_client.delivery import Call, HttpAnswer
from engram_client.errors import JobCancelled, JobFailed
from engram_client.events import POLL_SECONDS, Following
from engram_client.records import JobRecord, JobUpdate
from engram_client.settings import ClientSettings

Result = TypeVar("Result")

FIRST_LOOK = 0.1
"""Seconds until a job that is waited for is asked for the first time; then each time half as long again."""


class JobSource(Protocol):
    """What a job needs of its client."""

    settings: ClientSettings

    def run(self, call: Call[Result]) -> Result:
        """Make a call."""

    def streaming(self, path: str, headers: Mapping[str, str]) -> AbstractContextManager[httpx.Response]:
        """An answer that is read while it comes."""


class LearningJob:
    """One job of a service."""

    def __init__(self, client: JobSource, record: JobRecord) -> None:
        self._client = client
        self.record = record
        """The job as it was last seen."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.record.state})"

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    def refresh(self) -> JobRecord:
        """Look at the job."""
        self.record = self._client.run(calls.job(self.id))
        return self.record

    def cancel(self) -> JobRecord:
        """Ask for its end; raises StateRefused (`job_over`) when it has ended already."""
        self.record = self._client.run(calls.cancel_job(self.id))
        return self.record

    def follow(self) -> Iterator[JobUpdate]:
        """Its events from the beginning, as they come, up to its last one; `result` then tells how it ended.

        A stream that breaks off is taken up where it was; where no stream is to be had, the job is asked for every
        second.
        """
        following = Following(self._client.settings.patience.seconds)
        while not following.over:
            if following.polling:
                if (update := following.polled(self.refresh())) is not None:
                    yield update
            else:
                yield from self._stream(following)
            if not following.over:
                time.sleep(following.pause)
        self.refresh()

    def result(self, timeout: float | None = None) -> JobRecord:
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
        while not self.refresh().over:
            check_time(self.id, until, pause)
            time.sleep(pause)
            pause = min(pause * 1.5, POLL_SECONDS)
        return succeeded(self.record)

    def _stream(self, following: Following) -> Iterator[JobUpdate]:
        """The events of one connection."""
        try:
            with self._client.streaming(calls.events_path(self.id), following.headers) as response:
                if response.status_code != 200:
                    content = response.read()
                    following.refused(HttpAnswer(response.status_code, response.headers, content))
                    return
                for line in response.iter_lines():
                    if (update := following.line(line)) is not None:
                        yield update
                    if following.over:
                        return
        except httpx.RequestError as error:
            following.broken(error)
        else:
            following.broken()


def succeeded(job: JobRecord) -> JobRecord:
    """A job that is over, if it made a version; raises JobFailed or JobCancelled."""
    if job.state == "succeeded":
        return job
    kind = JobCancelled if job.state == "cancelled" else JobFailed
    if job.error is None:
        raise kind(job.id, job.state, f"The job {job.id} is over: {job.state}.")
    raise kind(job.id, job.error.code, job.error.detail)


def check_time(job_id: str, until: float | None, pause: float) -> None:
    """Raise TimeoutError where a pause would last beyond a moment of the monotonic clock."""
    if until is not None and time.monotonic() + pause > until:
        raise TimeoutError(f"The job {job_id} has not ended in time; it goes on.")
