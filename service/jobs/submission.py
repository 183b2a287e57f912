"""A task on its way in: everything that can be refused is refused before anything is stored."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

from anyio import to_thread
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from engram.config.definition import InputShape
from engram.config.options import LearnOptions
from engram.data.archives import inspect, probe
from engram.data.containers import ArchiveLimits
from engram.data.images import ImageLimits
from engram.errors import TaskExists
from service.errors.exceptions import DataNotFound, DataUriNotAllowed, InvalidRequest
from service.errors.problem_details import invalid
from service.jobs.wakeup import WakeupSender
from service.models.live import LiveModels
from telemetry import logs, traces
from vault.errors import InvalidName, StoreUnavailable, UnknownJob
from vault.jobs.job import Job
from vault.vault import Vault

log = logging.getLogger("engram.service")


def task_name(name: str) -> str:
    """`name` when a task may be called so; raises InvalidName."""
    try:
        return check_task_name(name)
    except ValueError as error:
        raise InvalidName(f"{name[:120]!r}: {error}.") from error


def learn_options(options: Any) -> LearnOptions:
    """How to learn, from a JSON object; raises InvalidRequest."""
    if not isinstance(options, Mapping):
        raise InvalidRequest("options is not a JSON object.")
    try:
        return LearnOptions.model_validate(options)
    except ValidationError as error:
        raise invalid(error, "options") from error


def allowed_uri(uri: str, prefixes: tuple[str, ...]) -> str:
    """`uri` in its plainest form, when one of `prefixes` covers it.

    Raises
    ------
    DataUriNotAllowed
        No prefix covers it, or it is neither `s3://bucket/key` nor `file:///path`.
    """
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        # Resolved, so that neither `..` nor a link leads out of the prefix.
        plain = "file://" + os.path.realpath(unquote(parts.path))
    elif parts.scheme == "s3" and parts.netloc and not parts.query and ".." not in parts.path.split("/"):
        plain = uri
    else:
        raise DataUriNotAllowed("data.uri is neither s3://bucket/key nor file:///path.")
    if not any(plain.startswith(prefix.rstrip("/") + "/") for prefix in prefixes):
        raise DataUriNotAllowed(f"{uri} is not under any of the places that data may be taken from.")
    return plain


Room = Callable[[], AbstractAsyncContextManager[None]]
"""What a job is made in."""


class Submissions:
    """Takes tasks in, one at a time for each model."""

    def __init__(
        self, vault: Vault, live: LiveModels, waker: WakeupSender, limits: ArchiveLimits, image_limits: ImageLimits
    ) -> None:
        self._vault = vault
        self._live = live
        self._waker = waker
        self._limits = limits
        self._image_limits = image_limits
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Gone as soon as nobody submits for the model."""

    async def reachable(self) -> None:
        """Whether jobs can be worked on at all.

        A job that is stored is accepted, and done once Redis is there again; nothing is stored while it is known to be
        away, so that a client learns of the outage before it sends its data, and has nothing to take back.

        Raises
        ------
        RedisUnavailable
        """
        await to_thread.run_sync(self._vault.ping_redis)

    async def from_file(
        self,
        model: str,
        name: str,
        path: Path,
        options: LearnOptions,
        caller: str,
        job_id: str | None = None,
        job_slot: Room = nullcontext,
    ) -> Job:
        """A job to learn the task `name` from the archive at `path`, which is stored.

        Parameters
        ----------
        caller
            Whose it is.
        job_id
            The id that it is to have; the job that has it already is answered with.
        job_slot
            Entered just before the job is made; what that raises leaves nothing behind.

        Raises
        ------
        ArchiveError, ImageError, TooFewClasses, TooFewImages, TaskExists, CapacityExhausted, UnknownModel
        """
        if (made := await self._made(job_id)) is not None:
            return made
        await self._look_through(model, path)
        async with self._lock(model):
            try:
                lineage = await self._admit(model, name)
            except TaskExists:
                # By this very job, when another replica was asked the same and was faster.
                if (made := await self._made(job_id)) is not None:
                    return made
                raise
            data = await to_thread.run_sync(self._vault.objects.put_file, path)
            try:
                async with job_slot():
                    job = await self._submit(model, name, data, options, lineage, caller, job_id)
            except StoreUnavailable:
                # Perhaps only its answer got lost, and the job is there; an upload without a job is swept.
                raise
            except BaseException:
                await to_thread.run_sync(self._vault.objects.delete, f"data/{data}")
                raise
            if job.data != data:
                await to_thread.run_sync(self._vault.objects.delete, f"data/{data}")
            return job

    async def from_uri(
        self,
        model: str,
        name: str,
        uri: str,
        options: LearnOptions,
        caller: str,
        job_id: str | None = None,
        job_slot: Room = nullcontext,
    ) -> Job:
        """A job to learn the task `name` from the archive at `uri`, which is left where it is.

        Parameters
        ----------
        caller, job_id, room
            As in `from_file`.

        Raises
        ------
        DataNotFound
            No file is there; what lies in a bucket is looked at by the worker.
        ArchiveError, ImageError, TooFewClasses, TooFewImages, TaskExists, CapacityExhausted, UnknownModel
        """
        if (made := await self._made(job_id)) is not None:
            return made
        if uri.startswith("file://"):
            path = Path(uri.removeprefix("file://"))
            if not path.is_file():
                raise DataNotFound(f"There is no file at {uri}.")
            await self._look_through(model, path)
        async with self._lock(model):
            try:
                lineage = await self._admit(model, name)
            except TaskExists:
                if (made := await self._made(job_id)) is not None:
                    return made
                raise
            async with job_slot():
                return await self._submit(model, name, uri, options, lineage, caller, job_id)

    async def _made(self, job_id: str | None) -> Job | None:
        """The job that was made under this id before."""
        if job_id is None:
            return None
        with suppress(UnknownJob):
            return await to_thread.run_sync(self._vault.jobs.get, job_id)
        return None

    async def _look_through(self, model: str, path: Path) -> None:
        """Look at an archive's entries and try its first images."""
        loaded = await self._live.get(model)
        await to_thread.run_sync(self._try, path, loaded.memory.definition.input)

    def _try(self, path: Path, shape: InputShape) -> None:
        inspect(path, self._limits)
        probe(path, shape, self._limits, self._image_limits)

    def _lock(self, model: str) -> asyncio.Lock:
        return self._locks.setdefault(model, asyncio.Lock())

    async def _admit(self, model: str, name: str) -> str:
        """The lineage of the model, when it can learn a task called so."""
        await self.reachable()
        await self._live.refresh(model)
        loaded = await self._live.get(model)
        loaded.memory.admit(name)
        if any(job.task == name for job in await to_thread.run_sync(self._vault.jobs.open_jobs, model)):
            raise TaskExists(f"A job that learns {name!r} is open already.")
        return loaded.model.lineage

    async def _submit(
        self, model: str, name: str, data: str, options: LearnOptions, lineage: str, caller: str, job_id: str | None
    ) -> Job:
        chosen = options.model_dump(mode="json")
        with traces.span("job submit", kind=SpanKind.PRODUCER, attributes={"engram.model": model}) as span:
            # The worker's lines and spans lead back to this request by what the record keeps.
            asked = {"request_id": logs.value("request_id"), "caller": caller, **traces.carrier()}
            submit = partial(self._vault.jobs.submit, job_id=job_id, lineage=lineage, extra=asked)
            job = await to_thread.run_sync(submit, model, name, data, chosen)
            span.set_attribute("engram.job.id", job.id)
            logs.bind(job_id=job.id)
            log.info("job %s is to learn %s", job.id, name, extra={"model": model, "task": name})
            await to_thread.run_sync(self._waker.wake, model)
        return job


TASK_NAME = r"^[^/\\\x00-\x1f\x7f]{1,100}$"
"""Nearly all that `check_task_name` asks for."""


_SEPARATORS = re.compile(r"[/\\]")


def check_task_name(name: str) -> str:
    """`name` if it can stand in an address and be read: 1-100 printable characters, no slash, not `.` or `..`."""
    printable = all(unicodedata.category(character)[0] not in "CZ" or character == " " for character in name)
    if not 1 <= len(name) <= 100 or not printable or _SEPARATORS.search(name) or not name.strip(" ."):
        raise ValueError("a task's name has 1-100 printable characters and no slash")
    return name
