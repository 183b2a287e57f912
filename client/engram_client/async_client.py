"""Client of an Engram service for programs with an event loop (asyncio)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from types import TracebackType
from typing import Any, TypeVar

import httpx

from engram_client import calls
from engram_client.async_jobs import AsyncLearningJob
from engram_client.bodies import Sent, TrainingData
from engram_client.delivery import Call, Delivery, HttpAnswer, Patience
from engram_client.errors import DataRefused
from engram_client.explanation import Explanation
from engram_client.images import ImageSource, encoded
from engram_client.records import (
    AuditRecord,
    BackboneInfo,
    ImageAnswer,
    JobRecord,
    KeyInfo,
    LearnedTaskInfo,
    ListPage,
    ModelEntry,
    ModelInfo,
    NoveltyInfo,
    OwnKeyInfo,
    ServiceHealth,
    TaskEntry,
    VersionRecord,
)
from engram_client.settings import ClientSettings

Result = TypeVar("Result")
Item = TypeVar("Item")


class AsyncClient:
    """Client of one service, as `Client` is, for asyncio: every call is awaited; an asynchronous context manager.

    Files are read and folders zipped in threads, in which `on_sent` is called. The parameters are those of `Client`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.settings = ClientSettings.given(url, key, timeout, patience)
        self._http = httpx.AsyncClient(
            base_url=self.settings.url,
            headers=self.settings.headers,
            timeout=self.settings.timeouts,
            transport=transport,
        )

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.url!r})"

    async def aclose(self) -> None:
        """As `Client.close`."""
        await self._http.aclose()

    async def health(self) -> ServiceHealth:
        """As `Client.health`."""
        return await self.run(calls.health())

    async def models(self) -> list[ModelEntry]:
        """As `Client.models`."""
        return await self._all(calls.models)

    async def model(self, name: str) -> ModelInfo:
        """As `Client.model`."""
        return await self.run(calls.model(name))

    async def create_model(self, name: str, **definition: Any) -> ModelInfo:
        """As `Client.create_model`."""
        return await self.run(calls.create_model(name, definition))

    async def change_model(self, name: str, **changes: Any) -> ModelInfo:
        """As `Client.change_model`."""
        return await self.run(calls.change_model(name, changes))

    async def delete_model(self, name: str) -> None:
        """As `Client.delete_model`."""
        await self.run(calls.delete_model(name))

    async def learn(
        self,
        model: str,
        task: str,
        data: TrainingData,
        *,
        options: Mapping[str, Any] | None = None,
        on_sent: Sent | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncLearningJob:
        """As `Client.learn`."""
        call = await asyncio.to_thread(calls.learn, model, task, data, options, on_sent)
        record = await self.run(call, idempotency_key)
        return AsyncLearningJob(self, record)

    async def evaluate(
        self,
        model: str,
        data: TrainingData,
        *,
        versions: Sequence[int] | None = None,
        task: str | None = None,
        on_sent: Sent | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncLearningJob:
        """As `Client.evaluate`."""
        call = await asyncio.to_thread(calls.evaluate, model, data, versions, task, on_sent)
        return AsyncLearningJob(self, await self.run(call, idempotency_key))

    async def tasks(self, model: str) -> list[TaskEntry]:
        """As `Client.tasks`."""
        return await self._all(lambda after: calls.tasks(model, after))

    async def task(self, model: str, task: str) -> LearnedTaskInfo:
        """As `Client.task`."""
        return await self.run(calls.task(model, task))

    async def rename_task(
        self, model: str, task: str, name: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> VersionRecord:
        """As `Client.rename_task`."""
        return await self.run(calls.rename_task(model, task, name, labels))

    async def jobs(self, model: str | None = None) -> list[JobRecord]:
        """As `Client.jobs`."""
        return await self._all(lambda after: calls.jobs(model, after))

    async def job(self, job_id: str) -> AsyncLearningJob:
        """As `Client.job`."""
        return AsyncLearningJob(self, await self.run(calls.job(job_id)))

    async def predict(
        self,
        model: str,
        image: ImageSource,
        *,
        top_k: int | None = None,
        task: str | None = None,
        version: int | None = None,
        logits: bool | None = None,
        contenders: int | str | None = None,
    ) -> ImageAnswer:
        """As `Client.predict`."""
        asked = {"top_k": top_k, "task": task, "version": version, "logits": logits, "contenders": contenders}
        (answer,) = await self.run(calls.predict(model, [await asyncio.to_thread(encoded, image)], asked))
        assert isinstance(answer, ImageAnswer), "a request whose only image fails is refused"
        return answer

    async def predict_many(
        self,
        model: str,
        images: Iterable[ImageSource],
        *,
        top_k: int | None = None,
        task: str | None = None,
        version: int | None = None,
        batch: int = 64,
    ) -> calls.Answers:
        """As `Client.predict_many`."""
        asked = {"top_k": top_k, "task": task, "version": version}
        found: calls.Answers = []
        batches = calls.batches(images, batch)
        while files := await asyncio.to_thread(next, batches, None):
            found += await self._answers(model, files, asked)
        return found

    async def explain(
        self,
        model: str,
        image: ImageSource,
        *,
        format: str = "overlay",
        target: str | None = None,
        task: str | None = None,
        version: int | None = None,
        composite: str | None = None,
    ) -> Explanation:
        """As `Client.explain`."""
        asked = {"format": format, "target": target, "task": task, "version": version, "composite": composite}
        return await self.run(await asyncio.to_thread(calls.explain, model, image, asked))

    async def versions(self, model: str) -> list[VersionRecord]:
        """As `Client.versions`."""
        return await self._all(lambda after: calls.versions(model, after))

    async def version(self, model: str, version: int) -> VersionRecord:
        """As `Client.version`."""
        return await self.run(calls.version(model, version))

    async def activate(self, model: str, version: int, *, allow_empty: bool = False) -> VersionRecord:
        """As `Client.activate`."""
        return await self.run(calls.activate(model, version, allow_empty))

    async def reject(self, model: str, version: int) -> VersionRecord:
        """As `Client.reject`."""
        return await self.run(calls.reject(model, version))

    async def certificate(self, model: str, version: int | None = None) -> dict[str, Any]:
        """As `Client.certificate`."""
        number = (await self.model(model)).version if version is None else version
        return await self.run(calls.certificate(model, number))

    async def novelty(self, model: str) -> NoveltyInfo:
        """As `Client.novelty`."""
        return await self.run(calls.novelty(model))

    async def backbones(self) -> list[BackboneInfo]:
        """As `Client.backbones`."""
        return await self._all(calls.backbones)

    async def backbone(self, name: str) -> BackboneInfo:
        """As `Client.backbone`."""
        return await self.run(calls.backbone(name))

    async def add_backbone(
        self,
        name: str,
        weights: str | os.PathLike[str],
        architecture: str,
        *,
        config: Mapping[str, Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
        classes: Sequence[str] | None = None,
        licence: str | None = None,
        on_sent: Sent | None = None,
    ) -> BackboneInfo:
        """As `Client.add_backbone`."""
        described = {"config": config, "arguments": arguments, "classes": classes}
        return await self.run(calls.add_backbone(name, weights, architecture, described, licence, on_sent))

    async def delete_backbone(self, name: str) -> None:
        """As `Client.delete_backbone`."""
        await self.run(calls.delete_backbone(name))

    async def audit(
        self,
        *,
        model: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        limit: int = 1000,
    ) -> list[AuditRecord]:
        """As `Client.audit`."""
        asked = {"model": model, "action": action, "since": since and since.astimezone(timezone.utc).isoformat()}
        return await self._all(lambda after: calls.audit(asked, limit, after), limit)

    async def keys(self) -> list[KeyInfo]:
        """As `Client.keys`."""
        return await self._all(calls.keys)

    async def own_key(self) -> OwnKeyInfo:
        """As `Client.own_key`."""
        return await self.run(calls.own_key())

    async def create_key(
        self, name: str, scope: str, *, expires_at: datetime | None = None, **limits: int | None
    ) -> KeyInfo:
        """As `Client.create_key`."""
        return await self.run(calls.create_key(name, scope, expires_at, limits))

    async def revoke_key(self, key_id: str) -> None:
        """As `Client.revoke_key`."""
        await self.run(calls.revoke_key(key_id))

    async def run(self, call: Call[Result], idempotency_key: str | None = None) -> Result:
        """As `Client.run`."""
        delivery = Delivery(call, self.settings.patience, idempotency_key)
        while True:
            content = None if call.body is None else _in_threads(call.body.chunks())
            try:
                response = await self._http.request(
                    call.method, call.path, params=delivery.query, headers=delivery.headers, content=content
                )
            except httpx.RequestError as error:
                pause = delivery.broken(error)
            else:
                answer = HttpAnswer(response.status_code, response.headers, response.content)
                asked = delivery.pause(answer)
                if asked is None:
                    return delivery.result(answer)
                pause = asked
            await asyncio.sleep(pause)

    @asynccontextmanager
    async def streaming(self, path: str, headers: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        """As `Client.streaming`."""
        timeouts = self.settings.stream_timeouts
        async with self._http.stream("GET", path, headers=dict(headers), timeout=timeouts) as response:
            yield response

    async def _answers(self, model: str, files: list[bytes], asked: Mapping[str, Any]) -> calls.Answers:
        """Answers for the images of one request, each by itself where none of them can be read."""
        try:
            return await self.run(calls.predict(model, files, asked))
        except DataRefused as error:
            if len(files) == 1:
                return [calls.failure(error)]
        return [answer for file in files for answer in await self._answers(model, [file], asked)]

    async def _all(self, page: Callable[[str | None], Call[ListPage[Item]]], most: int | None = None) -> list[Item]:
        """All entries of a list, or the first of them."""
        found: list[Item] = []
        after: str | None = None
        while True:
            answered = await self.run(page(after))
            found += answered.items
            after = answered.next
            if after is None or (most is not None and len(found) >= most):
                return found[:most]


async def _in_threads(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Chunks, each of which is made in a thread: it may have to be read from a disk."""
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
