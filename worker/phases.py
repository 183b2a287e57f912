"""The phases of one attempt: a span, a duration and a field of the log for each."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from opentelemetry.trace import Span

from telemetry import logs, traces
from worker import metrics


class Phases:
    """Told of each phase when it begins, which ends the one before; the end of the block ends the last one.

    To be used in the thread that works, within the attempt's span.
    """

    def __init__(self) -> None:
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

    def _end(self, error: BaseException | None = None) -> None:
        if self._phase is None or self._span is None:
            return
        metrics.phases.labels(self._phase).observe(time.monotonic() - self._began)
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
