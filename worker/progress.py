"""Throttled reports of the progress of a job, published by a thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from engram.checkpointing.progress import Progress

_END_SECONDS = 5.0
"""How long unpublished phases may keep a job from its end: with a Redis that hangs each takes a minute."""


class ProgressReporter:
    """Thread that hands the latest progress to `publish` every `seconds`, and a new phase at once.

    No phase is left out, however short it is and however long the thread has to wait for its turn; but where `publish`
    is slow, what is not published a few seconds after the end is dropped.

    The learner may call it at each step: all it does there is to keep the latest report, and to call `enter` with a new
    phase, in the learner's own thread.
    """

    def __init__(
        self, publish: Callable[[dict[str, Any]], None], seconds: float, enter: Callable[[str], None] | None = None
    ) -> None:
        self._publish = publish
        self._enter = enter
        self._seconds = seconds
        self._latest: dict[str, Any] = {}
        self._begun: list[dict[str, Any]] = []
        """The first report of each phase, until it is handed on."""
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._over = threading.Event()
        self._until = math.inf
        """When the thread gives up what is not published yet."""
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until = time.monotonic() + _END_SECONDS
        self._over.set()
        self._changed.set()
        self._thread.join()

    def __call__(self, progress: Progress) -> None:
        """Keep the progress that the learner reports."""
        self.report(
            progress.phase,
            progress.fraction,
            epoch=progress.epoch,
            loss=progress.loss,
            accuracy=progress.accuracy,
            units=progress.units,
        )

    def report(self, phase: str, fraction: float, **figures: Any) -> None:
        """Keep a phase of the attempt with its share done, 0 to 1."""
        new_phase = phase != self._latest.get("phase")
        latest = {"phase": phase, "fraction": fraction, **figures}
        with self._lock:
            self._latest = latest
            if new_phase:
                self._begun.append(latest)
        if new_phase:
            if self._enter is not None:
                self._enter(phase)
            self._changed.set()

    def _run(self) -> None:
        over = False
        while not over:
            self._changed.wait(self._seconds)
            self._changed.clear()
            over = self._over.is_set()
            with self._lock:
                begun, self._begun = self._begun, []
                latest = self._latest
            for report in begun:
                if time.monotonic() >= self._until:
                    return
                self._publish(report)
            if latest and not over and latest not in begun:
                self._publish(latest)
