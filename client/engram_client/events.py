"""Server-sent events of a job, without input or output, and how a stream that breaks is taken up."""

from __future__ import annotations

import json
import time

from engram_client.delivery import HttpAnswer
from engram_client.errors import LimitReached, ServiceBusy, UnexpectedAnswer, Unreachable
from engram_client.records import JobRecord, JobUpdate

POLL_SECONDS = 1.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


class EventReader:
    """Reader of the lines of a stream of server-sent events (HTML standard, 9.2.6)."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        """Id of the last whole event."""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, line: str) -> JobUpdate | None:
        """Take the next line, without its end; the event that it completes."""
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "id" and "\0" not in value:
                self._id = value
            return None
        data, self._data = "\n".join(self._data), []
        if not data:
            return None
        self.last_id = self._id
        return JobUpdate.read(json.loads(data))

    def broken(self) -> None:
        """Forget an event of which only a part came."""
        self._data, self._id = [], self.last_id


class Following:
    """State of following one job: by its events, or by asking for it where there is no stream for us.

    Parameters
    ----------
    patience
        Seconds without a connection after which it gives up.
    """

    def __init__(self, patience: float) -> None:
        self.polling = False
        self.over = False
        self.pause = 0.0
        """Seconds to wait before the job is asked for, or the stream taken up, again."""
        self._reader = EventReader()
        self._patience = patience
        self._failing_since: float | None = None
        self._failures = 0
        self._seen: JobUpdate | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the events after the last one that came."""
        last = self._reader.last_id
        return {"Accept": "text/event-stream"} | ({} if last is None else {"Last-Event-ID": last})

    def line(self, line: str) -> JobUpdate | None:
        """Take a line of the stream."""
        self._failing_since, self._failures = None, 0
        update = self._reader.feed(line)
        if update is not None and update.over:
            self.over = True
        return update

    def refused(self, answer: HttpAnswer) -> None:
        """Take an answer that is no stream; refusals that are not of the moment are raised."""
        if answer.status == 204:
            self.over = True
            return
        error = answer.error()
        if isinstance(error, UnexpectedAnswer) and answer.status >= 500:
            self.broken(error)
            return
        if not isinstance(error, ServiceBusy | LimitReached):
            raise error
        self.polling = True
        self.pause = min(error.retry_after or POLL_SECONDS, _LONGEST_PAUSE)

    def broken(self, error: Exception | None = None) -> None:
        """Take the end of a stream that came too early; raises Unreachable when that goes on for too long."""
        self._reader.broken()
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if error is not None and now - self._failing_since > self._patience:
            raise Unreachable(f"The events of the job break off: {error or type(error).__name__}.") from error
        self.pause = min(_FIRST_PAUSE * 2.0**self._failures, _LONGEST_PAUSE)
        self._failures += 1

    def polled(self, job: JobRecord) -> JobUpdate | None:
        """What is new of a job that was asked for."""
        update = JobUpdate.read(
            {
                "state": job.state,
                "phase": job.phase,
                **(job.progress or {}),
                "error": job.raw.get("error"),
                "result": job.result,
            }
        )
        self.over, self.pause = job.over, POLL_SECONDS
        new = update != self._seen
        self._seen = update
        return update if new else None
