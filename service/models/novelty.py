"""Novelty monitors of the live models, of this replica and, by way of Redis, of all others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engram.drift.monitor import STATES, State, StreamMonitor
from engram.recognition.predictions import Prediction
from service.errors.problem_details import traceback_of
from service.metrics import Metrics
from service.models.live import LiveModels
from service.models.loaded import LoadedVersion
from vault.coordination.novelty_board import SPAN_SECONDS, SPANS, TTL_SECONDS, NoveltyBoard, SpanCounts
from vault.errors import UnknownModel
from vault.timestamps import now

log = logging.getLogger("engram.service")

_PUBLISH_SECONDS = 1.0
"""Between two times that reports are written to Redis."""
_REPEAT_SECONDS = TTL_SECONDS / 3
"""A report that stays the same is written again after that, so that it does not pass away."""


@dataclass
class _VersionMonitor:
    """Monitor of one live version."""

    loaded: LoadedVersion
    monitor: StreamMonitor = field(default_factory=StreamMonitor)
    since: str = field(default_factory=now)
    published: int = -1
    """How many images the report that Redis has is about."""
    published_at: float = 0.0

    def report(self) -> dict[str, Any]:
        """The state of the stream, and the version that it is about."""
        of = {"lineage": self.loaded.model.lineage, "version": self.loaded.version, "since": self.since}
        return self.monitor.to_dict() | of


@dataclass
class _StreamHistory:
    """Counts of a model's images by spans of time, in this process; and how many of them Redis has."""

    counts: dict[int, SpanCounts] = field(default_factory=dict)
    written: dict[int, SpanCounts] = field(default_factory=dict)

    def add(self, more: SpanCounts) -> None:
        """Count images of now."""
        span = _span()
        self.counts[span] = self.counts.get(span, SpanCounts()).plus(more)
        for old in [one for one in self.counts if one <= span - SPANS]:
            del self.counts[old]
            self.written.pop(old, None)

    def unwritten(self) -> dict[int, SpanCounts]:
        """What Redis has not been told yet."""
        differences = {one: all_.minus(self.written.get(one, SpanCounts())) for one, all_ in self.counts.items()}
        return {one: difference for one, difference in differences.items() if any(difference)}

    def note(self, written: Mapping[int, SpanCounts]) -> None:
        """Take note of what Redis was told."""
        for span, more in written.items():
            if span in self.counts:
                self.written[span] = self.written.get(span, SpanCounts()).plus(more)

    def with_others(self, told: Mapping[int, SpanCounts] | None) -> dict[int, SpanCounts]:
        """These with what Redis tells of all replicas; alone where it tells nothing."""
        if told is None:
            return dict(sorted(self.counts.items()))
        found = dict(told)
        for span, more in self.unwritten().items():
            found[span] = found.get(span, SpanCounts()).plus(more)
        return dict(sorted(found.items()))


class NoveltyMonitors:
    """Monitors of the live models, one for each version; every method but `read` belongs to the event loop.

    About once a second they write to Redis what has changed. Without Redis each replica knows of itself alone.
    """

    def __init__(self, live: LiveModels, board: NoveltyBoard, metrics: Metrics) -> None:
        self._live = live
        self._board = board
        self._metrics = metrics
        self._monitors: dict[str, _VersionMonitor] = {}
        self._histories: dict[str, _StreamHistory] = {}
        """By lineage: over all versions of a model."""
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self._published = False
        self.replica = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"

    def start(self) -> None:
        """Begin to publish reports; to be called inside the event loop."""
        self._task = asyncio.create_task(self._publish_reports())

    async def close(self) -> None:
        """Stop publishing, and withdraw what was published."""
        self._over.set()
        if self._task is not None:
            await self._task  # not cancelled: what its thread writes must not come after it is withdrawn
            await self._count_once(set(self._histories))
        if self._published:
            await asyncio.to_thread(self._board.clear, self.replica, list(self._monitors))

    def add(self, name: str, served: object, answers: Sequence[Prediction]) -> None:
        """Add answers of the model `name` to its monitor, unless what `served` them has just been replaced."""
        try:
            loaded = self._live.current(name)
        except UnknownModel:
            return
        if served is not loaded:
            return
        watch = self._monitor(loaded)
        monitor, before, unknown = watch.monitor, watch.monitor.state, watch.monitor.unknown
        for answer in answers:
            monitor.add(answer.novelty, answer.known is not False)  # what cannot be told is no stranger
        self._metrics.judged.labels(name).inc(len(answers))
        self._history(loaded).add(SpanCounts(len(answers), monitor.unknown - unknown))
        if monitor.unknown > unknown:
            self._metrics.unknown.labels(name).inc(monitor.unknown - unknown)
        if monitor.state != before:
            watch.since = now()
            self._show(watch)
            about = {"model": name, "version": loaded.version}
            log.info("what comes in is %s", monitor.state, extra=about)

    async def read(self, loaded: LoadedVersion) -> dict[str, Any]:
        """The worst state of all replicas on the live version `loaded`, with what its detectors say, and each state.

        Beside them the history of the model's images.
        """
        lineage = loaded.model.lineage
        reports = self._reports(loaded, await asyncio.to_thread(self._board.read, loaded.name))
        counts = self._history(loaded).with_others(await asyncio.to_thread(self._board.counts, lineage, _span()))
        worst = _worst(reports)
        samples, unknown = (sum(one[count] for one in reports.values()) for count in ("samples", "unknown"))
        return {
            "model": loaded.name,
            "version": loaded.version,
            "state": worst["state"],
            "samples": samples,
            "unknown": unknown,
            "unknown_share": _share(unknown, samples),
            "since": min(one["since"] for one in reports.values() if one["state"] == worst["state"]),
            "welch": worst["welch"],
            "cusum": worst["cusum"],
            "replicas": [_line(replica, one) for replica, one in sorted(reports.items())],
            "history": {"seconds": SPAN_SECONDS, "spans": [_spanned(span, one) for span, one in counts.items()]},
        }

    async def states(self, loaded: Sequence[LoadedVersion]) -> list[tuple[State, int]]:
        """The worst state of all replicas on each of these live versions, and the images that it rests on."""
        published = await asyncio.to_thread(self._board.read_all, [one.name for one in loaded])
        reports = [self._reports(one, published[one.name]) for one in loaded]
        return [(_worst(of)["state"], sum(one["samples"] for one in of.values())) for of in reports]

    def _reports(self, loaded: LoadedVersion, published: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """By replica what is said of a live version: as published, and by this one as it is now."""
        own = self._monitor(loaded).report()
        same = (own["lineage"], own["version"])
        told = {replica: one for replica, one in published.items() if (one["lineage"], one["version"]) == same}
        return {**told, self.replica: own}

    def _monitor(self, loaded: LoadedVersion) -> _VersionMonitor:
        watch = self._monitors.get(loaded.name)
        if watch is None or watch.loaded is not loaded:
            watch = self._monitors[loaded.name] = _VersionMonitor(loaded)
            self._show(watch)
        return watch

    def _history(self, loaded: LoadedVersion) -> _StreamHistory:
        return self._histories.setdefault(loaded.model.lineage, _StreamHistory())

    def _show(self, watch: _VersionMonitor) -> None:
        self._metrics.novelty.labels(watch.loaded.name).set(STATES.index(watch.monitor.state))

    async def _publish_reports(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PUBLISH_SECONDS):
                    await self._over.wait()
            if self._over.is_set():
                return
            try:
                await self._publish_once()
            except Exception as error:
                log.error("what became of novelty cannot be told: %s", error, exc_info=traceback_of(error))

    async def _publish_once(self) -> None:
        live = {loaded.name: self._monitor(loaded) for loaded in self._live.models()}
        gone = self._monitors.keys() - live.keys()
        for name in gone:
            del self._monitors[name]
            for metric in (self._metrics.novelty, self._metrics.unknown, self._metrics.judged):
                with contextlib.suppress(KeyError):
                    metric.remove(name)
        moment = time.monotonic()
        news = {
            name: (watch, watch.monitor.samples)
            for name, watch in live.items()
            if watch.published != watch.monitor.samples or moment - watch.published_at >= _REPEAT_SECONDS
        }
        reports = {name: watch.report() for name, (watch, _) in news.items()}
        self._published = await asyncio.to_thread(self._board.write, self.replica, reports)
        if self._published:
            for watch, samples in news.values():
                watch.published, watch.published_at = samples, moment
        await self._count_once({watch.loaded.model.lineage for watch in live.values()})

    async def _count_once(self, lineages: set[str]) -> None:
        """Tell Redis what was counted since it was told last."""
        for gone in self._histories.keys() - lineages:
            del self._histories[gone]
        histories = dict(self._histories)
        counts = {lineage: one.unwritten() for lineage, one in histories.items()}
        if await asyncio.to_thread(self._board.count, {lineage: one for lineage, one in counts.items() if one}):
            for lineage, one in counts.items():
                histories[lineage].note(one)


def _worst(reports: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    return max(reports.values(), key=lambda one: (STATES.index(one["state"]), one["samples"]))


def _line(replica: str, report: dict[str, Any]) -> dict[str, Any]:
    figures = {key: report[key] for key in ("state", "samples", "unknown", "since")}
    return {"replica": replica, **figures, "unknown_share": _share(report["unknown"], report["samples"])}


def _span() -> int:
    return int(time.time() // SPAN_SECONDS)


def _spanned(span: int, counts: SpanCounts) -> dict[str, Any]:
    began = datetime.fromtimestamp(span * SPAN_SECONDS, UTC)
    return {"began_at": began.strftime("%Y-%m-%dT%H:%M:%SZ"), **counts._asdict()}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
