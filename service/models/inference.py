"""Inference on live and older versions: batched predictions in one thread, heatmaps in another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from engram.errors import NothingLearned
from service.metrics import Metrics
from service.models.batching import AnswersCallback, Batcher, InferenceReply, InferenceRequest
from service.models.heatmaps import Heatmaps
from service.models.live import LiveModels
from service.models.loaded import LoadedVersion
from service.models.novelty import NoveltyMonitors
from service.settings import ServiceSettings


class Inference:
    """Predictions, by a batcher for each live model and each older version that is asked for, and heatmaps."""

    def __init__(self, live: LiveModels, settings: ServiceSettings, metrics: Metrics, novelty: NoveltyMonitors) -> None:
        self._live = live
        self._novelty = novelty
        self._settings = settings
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="inference")
        self.heatmaps = Heatmaps(settings, metrics)
        self._batchers: dict[str, Batcher] = {}
        self._older: dict[tuple[str, int], tuple[LoadedVersion, Batcher]] = {}

    def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.heatmaps.close()

    async def predict(self, name: str, query: InferenceRequest, version: int | None = None) -> InferenceReply:
        """Answers of the live version of `name`, or of the given one.

        Raises
        ------
        Overloaded, UnknownModel, UnknownVersion, ModelUnavailable, NothingLearned, UnknownTask
        """
        loaded = await (self._live.get(name) if version is None else self._live.get_version(name, version))
        if not loaded.commit.tasks:
            hint = "" if loaded.commit.publish == "auto" else "; what it learns waits until somebody activates it"
            raise NothingLearned(f"version {loaded.version} of the model {name} has learned no task yet{hint}")
        if version is None or loaded is self._live.current(name):
            if name not in self._batchers:
                for gone in self._batchers.keys() - {model.name for model in self._live.models()}:
                    del self._batchers[gone]
                on_answers = partial(self._novelty.add, name)
                self._batchers[name] = self._batcher(lambda: self._live.current(name), on_answers)
            return await self._batchers[name].submit(query)
        return await self._older_batcher(loaded).submit(query)

    def _older_batcher(self, loaded: LoadedVersion) -> Batcher:
        key = (loaded.name, loaded.version)
        if key not in self._older or self._older[key][0] is not loaded:
            while len(self._older) >= self._settings.older_versions:
                del self._older[next(iter(self._older))]
            self._older[key] = (loaded, self._batcher(lambda: loaded))
        return self._older[key][1]

    def _batcher(self, current: Callable[[], LoadedVersion], on_answers: AnswersCallback | None = None) -> Batcher:
        settings = self._settings
        return Batcher(
            current,
            self._pool,
            self._metrics,
            on_answers,
            size=settings.batch_images,
            wait=settings.batch_wait_ms / 1000,
            bound=settings.queue_images,
            retry_after=settings.retry_after_seconds,
        )
