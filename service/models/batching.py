"""Dynamic batching of the requests for one model, one batch at a time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.errors import UnknownTask
from engram.memory import Memory
from engram.recognition.predictions import Observation, Prediction
from service.errors.exceptions import Overloaded
from service.errors.problem_details import status_of
from service.metrics import Metrics
from service.middleware.limiter import full
from telemetry import traces

log = logging.getLogger("engram.service")


_PAUSE_SECONDS = 0.5e-3
"""Without a further image, after which a batch that others were gathered for begins."""
_IDLE_TURN_SECONDS = 50e-6
_LONGEST_SECONDS = 0.02
"""For which images are gathered at most."""


class ServedModel(Protocol):
    """A version and its memory, which a batch runs on."""

    @property
    def version(self) -> int: ...

    @property
    def memory(self) -> Memory: ...


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request's images (B, C, H, W) uint8, and which answers it asks for."""

    images: Tensor
    task: str | None = None
    top_k: int = 1
    logits: bool = False
    """Also the logits of `task`; such a query runs by itself, since the last bits depend on the batch's shape."""
    decoded_for: ServedModel | None = None
    """The version by whose decoder the images were decoded, where that may matter."""
    contenders: int | Literal["all"] | None = None
    """As of `Memory.observe`."""
    probabilities: bool = False
    """Also those of all classes."""


@dataclass(frozen=True, slots=True)
class InferenceReply:
    """Answers to one query, all from `version`."""

    version: int
    answers: list[Prediction]
    logits: list[list[float]] | None
    probabilities: NDArray[numpy.float32] | None = None
    """(B, classes): as of `Observation.probabilities`."""


AnswersCallback = Callable[[ServedModel, list[Prediction]], None]
"""Called with what answered, and with the answers to requests that did not give the task."""


@dataclass(slots=True)
class _Waiting:
    query: InferenceRequest
    future: asyncio.Future[InferenceReply]
    images: int
    """Of the query: a tensor takes longer to say how many."""
    since: float = field(default_factory=time.monotonic)
    asked: int = field(default_factory=time.time_ns)
    ran: tuple[int, int, int] | None = None
    """When its batch began and ended (nanoseconds since 1970), and the batch's images."""


class Batcher:
    """Bounded queue of queries for one model, answered in batches.

    A query that finds the model idle starts at once, alone. Queries that come while a batch runs form the next one,
    up to `size` images, together on the version that is current when it starts; it starts once as many wait as were
    answered or waited before, or no more come. `wait` seconds let a batch that follows another directly, and is not
    full, fill up further. Images that were decoded for a version which decodes otherwise than the current one are
    answered by the version they were decoded for. Where a model answers in stages, those of a batch that ask for
    the same go through it together: the images of one given task, and those without. A query of more than `size`
    images is answered in several passes on one version. When a batch fails, its queries are tried one by one, so
    that only what is at fault fails. `on_answers` is called for every batch in the event loop, after its clients
    have their answers.
    """

    def __init__(
        self,
        current: Callable[[], ServedModel],
        pool: ThreadPoolExecutor,
        metrics: Metrics,
        on_answers: AnswersCallback | None = None,
        *,
        size: int,
        wait: float,
        bound: int,
        retry_after: int,
    ) -> None:
        self._current = current
        self._pool = pool
        self._metrics = metrics
        self._on_answers = on_answers
        self._size = size
        self._wait = wait
        self._bound = bound
        self._retry_after = retry_after
        self._queue: deque[_Waiting] = deque()
        self._images = 0
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, query: InferenceRequest) -> InferenceReply:
        """Answers to `query`.

        Raises
        ------
        Overloaded
            At once, when `bound` images wait already.
        """
        count = query.images.shape[0]
        if self._queue and self._images + count > self._bound:
            self._metrics.refused.labels("predict").inc()
            raise full("images", self._images, self._bound, self._retry_after)
        waiting = _Waiting(query, asyncio.get_running_loop().create_future(), count)
        self._queue.append(waiting)
        self._count(count)
        if self._runner is None:
            # Batches belong to no single request: neither do their lines in the log.
            self._runner = asyncio.create_task(self._run(), context=Context())
        try:
            return await waiting.future
        finally:
            _trace(waiting)

    def _count(self, images: int) -> None:
        self._images += images
        self._metrics.waiting.inc(images)

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = self._take()
                if batch:
                    await self._answer(batch)
                # Who was answered may ask again at once, as those do that have one request under way at a time.
                expected = sum(waiting.images for waiting in batch) + self._images
                if expected > 1:
                    await self._gather(min(expected, self._size))
                await self._fill()
        finally:
            self._runner = None

    async def _gather(self, expected: int) -> None:
        """Wait until so many images wait, while they keep coming.

        The thread of the batch and the event loop take turns at the interpreter's lock, so that a batch which begins
        while requests are read runs hardly beside that; a larger one takes less for each image.
        """
        images, before = self._images, time.monotonic()
        until, idle = before + _LONGEST_SECONDS, 0.0
        while self._images < expected and idle < _PAUSE_SECONDS and before < until:
            await asyncio.sleep(0)
            now = time.monotonic()
            # A turn of the loop that takes longer than nothing does has work of requests in it.
            busy = self._images > images or now - before > _IDLE_TURN_SECONDS
            idle = 0.0 if busy else idle + now - before
            images, before = self._images, now

    async def _fill(self) -> None:
        if not self._wait or not self._queue:
            return
        until = self._queue[0].since + self._wait
        while self._images < self._size and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, 0.001))

    def _take(self) -> list[_Waiting]:
        """The next batch: at least one query, no more than `size` images, one that wants logits by itself."""
        batch: list[_Waiting] = []
        images = 0
        while self._queue:
            head = self._queue[0]
            count = head.images
            alone = head.query.logits
            if batch and (alone or images + count > self._size):
                break
            self._queue.popleft()
            self._count(-count)
            if head.future.done():  # its client has gone
                continue
            batch.append(head)
            images += count
            if alone:
                break
        return batch

    async def _answer(self, batch: list[_Waiting]) -> None:
        queries = [waiting.query for waiting in batch]
        images = sum(waiting.images for waiting in batch)
        self._metrics.batches.observe(images)
        began, moment = time.perf_counter(), time.time_ns()
        served: ServedModel | None = None
        outcomes: list[InferenceReply | Exception]
        try:
            loop = asyncio.get_running_loop()
            served, outcomes = await loop.run_in_executor(self._pool, _infer, self._current, queries, self._size)
        except Exception as error:
            if len(batch) > 1 and status_of(error) is None:  # one of them may be to blame, which shall fail alone
                log.exception("a batch of %d requests failed; each is tried by itself", len(batch))
                for waiting in batch:
                    await self._answer([waiting])
                return
            outcomes = [self._no_memory() if _lacks_memory(error) else error] * len(batch)
        self._metrics.inference.observe(time.perf_counter() - began)
        answers: list[Prediction] = []
        ran = (moment, time.time_ns(), images)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            waiting.ran = ran
            if waiting.future.done():
                continue
            if isinstance(outcome, Exception):
                waiting.future.set_exception(outcome)
            else:
                waiting.future.set_result(outcome)
                if waiting.query.task is None:
                    current = served is not None and outcome.version == served.version
                    answers += outcome.answers if current else []
        if served is not None and served.memory.method.shapes:
            for answer in answers:
                self._metrics.engrams.observe(len(answer.ran))
        if self._on_answers is not None and served is not None and answers:
            try:
                self._on_answers(served, answers)
            except Exception:  # the clients have their answers, and those that wait want theirs
                log.exception("the answers of a batch could not be listened to")

    def _no_memory(self) -> Overloaded:
        self._metrics.refused.labels("memory").inc()
        log.exception("there is not enough memory for a batch")
        return Overloaded("There is not enough memory to answer this at present.", self._retry_after)


def _lacks_memory(error: Exception) -> bool:
    """Whether an allocation failed; PyTorch has no class of its own for that on a processor."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def _trace(waiting: _Waiting) -> None:
    """The spans of a request that was answered, in its own context: the batch ran in that of many."""
    if waiting.ran is not None and traces.recording():
        began, ended, images = waiting.ran
        traces.past("queue", waiting.asked, began, {"engram.images": waiting.images})
        traces.past("infer", began, ended, {"engram.batch.images": images})


def _infer(
    current: Callable[[], ServedModel], queries: list[InferenceRequest], size: int
) -> tuple[ServedModel, list[InferenceReply | Exception]]:
    """The current version, and for each query its reply from it, or the error that is its own."""
    served = current()
    chosen = [_version_for(query, served) for query in queries]
    outcomes: dict[int, InferenceReply | Exception] = {}
    for version in {id(one): one for one in chosen}.values():
        places = [place for place, one in enumerate(chosen) if one is version]
        outcomes |= zip(places, _replies(version, [queries[place] for place in places], size), strict=True)
    return served, [outcomes[place] for place in range(len(queries))]


def _version_for(query: InferenceRequest, served: ServedModel) -> ServedModel:
    """The version that answers a query: that which is `served`, unless it decodes otherwise than the query's images."""
    own = query.decoded_for
    if own is None or own is served or own.memory.definition.decoding == served.memory.definition.decoding:
        return served
    return own


def _replies(served: ServedModel, queries: list[InferenceRequest], size: int) -> list[InferenceReply | Exception]:
    if len(queries) == 1 and (queries[0].logits or len(queries[0].images) <= size):
        return [_reply(served, queries[0], _observe(served, queries[0], queries[0].images))]
    if len(queries) == 1:
        chunks = torch.split(queries[0].images, size)
        replies = [_reply(served, queries[0], _observe(served, queries[0], chunk)) for chunk in chunks]
        told = [reply.probabilities for reply in replies if reply.probabilities is not None]
        answers = [answer for reply in replies for answer in reply.answers]
        return [InferenceReply(served.version, answers, None, numpy.concatenate(told) if told else None)]
    if not served.memory.method.shapes:
        return _together(served, queries, served.memory.observe(torch.cat([query.images for query in queries])))
    groups: dict[object, list[int]] = {}
    for place, query in enumerate(queries):
        groups.setdefault((query.task, query.contenders if query.task is None else None), []).append(place)
    outcomes: dict[int, InferenceReply | Exception] = {}
    for places in groups.values():
        alike = [queries[place] for place in places]
        try:
            observed = _observe(served, alike[0], torch.cat([query.images for query in alike]))
        except UnknownTask as error:
            outcomes |= dict.fromkeys(places, error)
        else:
            outcomes |= zip(places, _together(served, alike, observed), strict=True)
    return [outcomes[place] for place in range(len(queries))]


def _observe(served: ServedModel, query: InferenceRequest, images: Tensor) -> Observation:
    return served.memory.observe(images, query.task, query.contenders)


def _together(
    served: ServedModel, queries: list[InferenceRequest], observed: Observation
) -> list[InferenceReply | Exception]:
    """For each query its reply from what was observed of the images of all, in order."""
    if len({query.task for query in queries}) == 1 and not any(query.logits for query in queries):
        with suppress(Exception):  # which may concern one query alone: each is asked for by itself then
            parts = [(len(query.images), query.top_k) for query in queries]
            answers = observed.predictions_each(parts, queries[0].task)
            told = _told_each(queries, observed, parts)
            return [InferenceReply(served.version, part, None, own) for part, own in zip(answers, told, strict=True)]
    outcomes: list[InferenceReply | Exception] = []
    start = 0
    for query in queries:
        stop = start + len(query.images)
        try:
            outcomes.append(_reply(served, query, observed[start:stop]))
        except Exception as error:  # an unknown task, say, concerns this query alone
            outcomes.append(error)
        start = stop
    return outcomes


def _told_each(
    queries: list[InferenceRequest], observed: Observation, parts: list[tuple[int, int]]
) -> list[NDArray[numpy.float32] | None]:
    """For each query, all of one task, the probabilities of all classes, where it asks for them."""
    if not any(query.probabilities for query in queries):
        return [None] * len(queries)
    every, found, end = _told(observed, queries[0].task), list[NDArray[numpy.float32] | None](), 0
    for query, (count, _) in zip(queries, parts, strict=True):
        end += count
        found.append(every[end - count : end] if query.probabilities else None)
    return found


def _told(observed: Observation, task: str | None) -> NDArray[numpy.float32]:
    found: NDArray[numpy.float32] = observed.probabilities(task).float().numpy()
    return found


def _reply(served: ServedModel, query: InferenceRequest, observed: Observation) -> InferenceReply:
    logits = None
    if query.logits:
        assert query.task is not None, "the route asks for a task with logits"
        logits = [[float(value) for value in row] for row in observed.logits(query.task).tolist()]
    told = _told(observed, query.task) if query.probabilities else None
    return InferenceReply(served.version, observed.predictions(task=query.task, top_k=query.top_k), logits, told)
