"""Spans, metrics and log fields of one attempt at a job and of its phases."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from opentelemetry.trace import Span, SpanKind

from telemetry import logs, traces
from vault.errors import LeaseLost, StoreUnavailable
from vault.jobs.job import Job
from worker import metrics
from worker.interruption import Interrupted, ModelChanged

_OUTCOMES: dict[type[BaseException], str] = {
    Interrupted: "interrupted",
    LeaseLost: "lease_lost",
    ModelChanged: "moved",
    StoreUnavailable: "store_unavailable",
}
"""Outcomes of attempts that end with an error, which leave the job open."""


@dataclass
class ObservedAttempt:
    """Attempt under way, whose outcome is counted when it ends."""

    outcome: str = "broken_off"
    """How it ended: the job's own state, or why the job is still open."""


@contextmanager
def about(job: Job) -> Iterator[None]:
    """A block in which every line of the log has the ids of the job and of the request that submitted it."""
    asked = job.extra.get("request_id")
    known: dict[str, Any] = {"job_id": job.id, "model": job.model, "task": job.task}
    with logs.bound(**known, **({"request_id": asked} if asked else {})):
        yield


@contextmanager
def observed(job: Job, token: int) -> Iterator[ObservedAttempt]:
    """A block around the attempt `token`, with a span that is linked to that of the request that submitted the job."""
    attempt = ObservedAttempt()
    if token == 1:
        metrics.begun(job)
    attributes = {"engram.job.id": job.id, "engram.model": job.model, "engram.task": job.task}
    if asked := job.extra.get("request_id"):
        attributes["engram.request.id"] = str(asked)
    with (
        logs.bound(attempt=token, phase="loading"),
        traces.span(
            "job attempt",
            kind=SpanKind.CONSUMER,
            link=traces.link_to(job.extra),
            attributes={**attributes, "engram.job.attempt": token},
        ) as span,
        metrics.running.track_inprogress(),
    ):
        try:
            yield attempt
        except BaseException as error:
            attempt.outcome = next((name for kind, name in _OUTCOMES.items() if isinstance(error, kind)), "broken_off")
            raise
        finally:
            metrics.attempts.labels(attempt.outcome).inc()
            span.set_attribute("engram.job.outcome", attempt.outcome)
            if attempt.outcome in ("failed", "broken_off"):
                traces.failed(span, attempt.outcome)


class PhaseRecorder:
    """Span, time and log field of each phase: `enter` begins one and ends the one before; leaving ends the last.

    To be used in the thread that works, within the attempt's span.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Of the phases that are over."""
        self._phase: str | None = None
        self._began = 0.0
        self._span: Span | None = None

    def enter(self, phase: str) -> None:
        """Begin a phase; nothing happens where it is under way already."""
        if phase == self._phase:
            return
        self._end()
        self._phase, self._began = phase, time.monotonic()
        self._span = traces.begin(phase, {"engram.job.phase": phase})
        logs.bind(phase=phase)

    def around(self, learning: Mapping[str, float], reading: float) -> dict[str, float]:
        """Seconds of what the attempt has done so far, in order: those of learning in the place of its phases.

        Parameters
        ----------
        reading
            Seconds of loading that the upload took.
        """
        loading, verifying = (self.seconds.get(phase, 0.0) for phase in ("loading", "verifying"))
        before = {"loading": round(loading - reading, 3), "reading": round(reading, 3)}
        return {**before, **learning, "verifying": verifying}

    def _end(self, error: BaseException | None = None) -> None:
        if self._phase is None or self._span is None:
            return
        took = time.monotonic() - self._began
        self.seconds[self._phase] = round(self.seconds.get(self._phase, 0.0) + took, 3)
        metrics.phases.labels(self._phase).observe(took)
        if error is not None:
            traces.failed(self._span, error)
        self._span.end()
        self._phase = self._span = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(error)
