"""Heatmaps of live and older versions, one at a time in a thread of their own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from engram.errors import NoNetwork
from engram.explain.explainer import STYLES, Heatmap
from engram.memory import Memory
from engram.recognition.predictions import Prediction
from service.errors.exceptions import TooManyImages
from service.errors.problem_details import status_of
from service.metrics import Metrics
from service.middleware.limiter import Limiter
from service.settings import ServiceSettings
from telemetry import traces

Result = TypeVar("Result")

PIXELS = "pixels"
"""The style whose picture is not encoded."""


@dataclass(frozen=True, slots=True)
class DrawnHeatmap:
    """A heatmap, and the PNG of it in the style that was asked for, or its pixels."""

    heatmap: Heatmap
    png: bytes | None
    """None where its numbers or its pixels are asked for instead."""
    pixels: Tensor | None = None
    """(H', W', 3) uint8."""

    @classmethod
    def of(cls, heatmap: Heatmap, style: str) -> DrawnHeatmap:
        """A heatmap drawn in a style, as `PIXELS`, or not drawn where the style is none of these."""
        if style == PIXELS:
            return cls(heatmap, None, heatmap.pixels())
        return cls(heatmap, heatmap.png(style) if style in STYLES else None)


class Heatmaps:
    """Maker of heatmaps beside the predictions, of which a bounded number may wait."""

    def __init__(self, settings: ServiceSettings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._most = min(settings.max_heatmaps_per_request, settings.explain_queue)
        self._waiting = Limiter(metrics, "explain", "heatmaps", settings.explain_queue, settings.retry_after_seconds)

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def bound(self, count: int) -> None:
        """Raise TooManyImages where so many images are not explained in one request."""
        if count > self._most:
            raise TooManyImages(f"{count} images with a heatmap each in one request; the most is {self._most}.")

    def held(self, count: int) -> AbstractContextManager[None]:
        """A block in which so many heatmaps are made; raises Overloaded, at once, where too many wait already."""
        return self._waiting.held(count)

    async def explain(
        self, memory: Memory, image: Tensor, target: str | None, task: str | None, composite: str | None, style: str
    ) -> DrawnHeatmap:
        """The heatmap of `image` (C, H, W) uint8.

        Raises
        ------
        Overloaded, NothingLearned, UnknownTask, UnknownLabel, UnknownComposite, NoNetwork
        """

        def make() -> DrawnHeatmap:
            return DrawnHeatmap.of(memory.explain(image, target=target, task=task, composite=composite), style)

        with self.held(1):
            return await self._run(make)

    async def explain_answers(
        self, memory: Memory, images: Sequence[Tensor], answers: Sequence[Prediction], task: str | None, style: str
    ) -> list[DrawnHeatmap | Exception]:
        """For each answer the heatmap of its label, or why there is none; to be called in a block of `held`.

        Parameters
        ----------
        task
            The only one that was asked, where it was given.
        """

        async def one(image: Tensor, answer: Prediction) -> DrawnHeatmap | Exception:
            try:
                return await self._run(lambda: DrawnHeatmap.of(_of_answer(memory, image, answer, task), style))
            except Exception as error:
                if not _is_own(error):
                    raise
                return error

        asked = (one(image, answer) for image, answer in zip(images, answers, strict=True))
        # All are waited for, since the room that they take is given back once this is over.
        found = await asyncio.gather(*asked, return_exceptions=True)
        if failed := next((one for one in found if isinstance(one, BaseException) and not _is_own(one)), None):
            raise failed
        return [one for one in found if not isinstance(one, BaseException) or isinstance(one, Exception)]

    async def _run(self, make: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        try:
            with traces.span("explain"):
                return await asyncio.get_running_loop().run_in_executor(self._pool, make)
        finally:
            self._metrics.heatmaps.observe(time.perf_counter() - began)


def _is_own(error: BaseException) -> bool:
    """Whether an error is an image's own, and no failure of the service."""
    return (status_of(error) or 500) < 500


def _of_answer(memory: Memory, image: Tensor, answer: Prediction, task: str | None) -> Heatmap:
    """The heatmap that `Memory.explain` gives for an image with this answer, without asking for the answer again."""
    try:
        return memory.explain(image, target=answer.label, task=answer.task)
    except NoNetwork:
        if task is not None or not answer.top[0].tasks:
            raise
        return memory.explain(image, target=answer.label)  # of the tasks that share the label, one with a network
