"""Submission of jobs; what can be refused is refused before anything is stored."""

from __future__ import annotations

import asyncio
import logging
import re
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

from anyio import to_thread
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from engram.config.options import LearnOptions
from engram.data.archives import inspect, probe
from engram.data.archiving.names import check_name, is_junk, shown
from engram.data.containers import ArchiveLimits
from engram.data.isolation.decoder import BoundedDecoder
from engram.data.labelled_images import LabelledImages
from engram.errors import BadName, NothingLearned, TaskExists, UnknownTask
from engram.memory import Memory
from engram.nn.capacity import TaskInfo
from engram.recognition.naming import Naming
from engram.training.evaluation.true_labels import TrueLabels
from engram.training.mixed_precision import expect_mixable
from service.errors.exceptions import DataNotFound, InvalidRequest
from service.errors.problem_details import invalid
from service.jobs.wakeup import WakeupSender
from service.models.live import LiveModels
from service.models.loaded import LoadedVersion
from telemetry import logs, traces
from vault import approval
from vault.classes.names import find, named_tasks
from vault.errors import InvalidName, StoreUnavailable, UnknownJob
from vault.jobs.job import Job, JobKind
from vault.vault import Vault

log = logging.getLogger("engram.service")

TASK_NAME = r"^[^/\\\x00-\x1f\x7f]{1,100}$"
"""Nearly all that `task_name` asks for, as a pattern for the document of the interface."""
_SEPARATORS = re.compile(r"[/\\]")

JobSlot = Callable[[], AbstractAsyncContextManager[None]]
"""Makes the block that a job is made in."""


def task_name(name: str) -> str:
    """`name` if it can stand in an address and be read: 1-100 printable characters, no slash, not `.` or `..`.

    Names that read the same are one: no blanks around it, nothing unseen in it, and letters in Unicode's composed form.

    Raises
    ------
    InvalidName
    """
    printable = all(unicodedata.category(character)[0] not in "CZ" or character == " " for character in name)
    if not 1 <= len(name) <= 100 or not printable or _SEPARATORS.search(name) or not name.strip(" ."):
        raise InvalidName(f"{name[:120]!r}: a task's name has 1-100 printable characters and no slash.")
    try:
        check_name("a task's name", name)
    except BadName as error:
        raise InvalidName(f"{error}.") from error
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidName(f"{shown(name)}: a task's name is in Unicode's composed form (NFC).")
    return name


def label_name(label: str) -> str:
    """`label` if a class can be called so: 1-255 printable characters that the folder of a class may have.

    Raises
    ------
    InvalidName
    """
    if not 1 <= len(label) <= 255 or not label.isprintable() or _SEPARATORS.search(label) or not label.strip(" ."):
        raise InvalidName(f"{label[:120]!r}: a label has 1-255 printable characters and no slash.")
    try:
        check_name("a label", label)
    except BadName as error:
        raise InvalidName(f"{error}.") from error
    if is_junk(label) or not unicodedata.is_normalized("NFC", label):
        why = "folders of that name are passed over" if is_junk(label) else "it is not in Unicode's composed form (NFC)"
        raise InvalidName(f"{shown(label)} cannot be a label: {why}.")
    return label


def learn_options(options: Any) -> LearnOptions:
    """The options of learning in a JSON object; raises InvalidRequest."""
    if not isinstance(options, Mapping):
        raise InvalidRequest("options is not a JSON object.")
    try:
        return LearnOptions.model_validate(options)
    except ValidationError as error:
        raise invalid(error, "options") from error


@dataclass(frozen=True)
class TaskSubmission:
    """Request to have a task learned, apart from its data."""

    model: str
    task: str
    options: LearnOptions
    caller: str
    """Whose it is."""
    job_id: str | None = None
    """The id that its job is to have; the job that has it already is answered with."""
    job_slot: JobSlot = nullcontext
    """Entered just before the job is made; what that raises leaves nothing behind."""
    by: Mapping[str, Any] | None = None
    """Who asks, for the audit log."""

    kind: ClassVar[JobKind] = "learn"

    def stored(self) -> dict[str, Any]:
        """What the job is to keep of its options."""
        return self.options.stored()


@dataclass(frozen=True)
class EvaluationSubmission:
    """Request to have versions evaluated, apart from its data."""

    model: str
    versions: tuple[int, ...]
    task: str
    """The one that all images are of; empty where their folders say it."""
    caller: str
    """Whose it is."""
    job_id: str | None = None
    """As of `TaskSubmission`, as is `job_slot`."""
    job_slot: JobSlot = nullcontext
    by: None = None
    """It changes nothing, so that nothing of it is in the audit log."""

    kind: ClassVar[JobKind] = "evaluate"

    def stored(self) -> dict[str, Any]:
        """What the job is to keep of its options."""
        return {"versions": list(self.versions)}


Submission = TaskSubmission | EvaluationSubmission


class Submissions:
    """Submission of jobs; of tasks one at a time for each model."""

    def __init__(
        self, vault: Vault, live: LiveModels, wakeups: WakeupSender, limits: ArchiveLimits, decoder: BoundedDecoder
    ) -> None:
        self._vault = vault
        self._live = live
        self._wakeups = wakeups
        self._limits = limits
        self._decoder = decoder
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By model, while tasks are submitted for it."""

    async def reachable(self) -> None:
        """Return if jobs can be worked on at all.

        A job that is stored is accepted, and done once Redis is there again; nothing is stored while it is known to be
        away, so that a client learns of the outage before it sends its data, and has nothing to take back.

        Raises
        ------
        RedisUnavailable
        """
        await to_thread.run_sync(self._vault.ping_redis)

    async def from_file(self, submission: Submission, path: Path) -> Job:
        """A job on the archive at `path`, which is stored.

        Raises
        ------
        ArchiveError, ImageError, UnknownModel
        TooFewClasses, TooFewImages, TaskExists, CapacityExhausted
            of what is to be learned.
        UnknownVersion, NothingLearned, UnknownTask
            of what is to be evaluated.
        """
        return await self._once(submission, path, partial(self._store_and_submit, submission, path))

    async def from_uri(self, submission: Submission, uri: str) -> Job:
        """A job on the archive at `uri`, which is left where it is; raises as `from_file` does, and DataNotFound.

        What lies in a bucket is only read by the worker.
        """
        path = Path(uri.removeprefix("file://")) if uri.startswith("file://") else None
        return await self._once(submission, path, partial(self._submit, submission, uri))

    async def _expect_evaluable(self, submission: EvaluationSubmission, path: Path | None) -> str:
        """The lineage of a model whose versions can be evaluated, on the archive at `path` where that is here."""
        await self.reachable()
        loaded = await self._live.get(submission.model)
        await to_thread.run_sync(self._check_evaluable, submission, loaded, path)
        return loaded.model.lineage

    def _check_evaluable(self, submission: EvaluationSubmission, loaded: LoadedVersion, path: Path | None) -> None:
        namings: dict[int, Naming] = {}
        for number in submission.versions:
            commit = self._vault.log.read(submission.model, number)
            if not commit.tasks:
                raise NothingLearned(f"version {number} has learned no task yet")
            tasks = named_tasks(commit)
            namings[number] = Naming(
                tuple(TaskInfo(task.learned_name, task.learned_classes) for task in tasks),
                tuple(TaskInfo(task.name, task.classes) for task in tasks),
            )
        versions = TrueLabels.of_versions(namings)
        if submission.task and submission.task not in versions[0].others:
            raise UnknownTask(f"no version that is to be evaluated has a task {submission.task!r}")
        if path is None:
            return
        images = LabelledImages(path, self._limits, [loaded.memory.definition], self._decoder)
        for labels in versions:
            for folder in images.plan.folders:
                labels.of(folder, submission.task or None)
        images.probe()

    async def _store_and_submit(self, submission: Submission, path: Path, lineage: str) -> Job:
        """A job on the archive at `path`, which is stored; one that is not needed is removed again."""
        data = await to_thread.run_sync(self._vault.objects.put_file, path)
        try:
            job = await self._submit(submission, data, lineage)
        except StoreUnavailable:
            # Perhaps only its answer got lost, and the job is there; an upload without a job is swept.
            raise
        except BaseException:
            await to_thread.run_sync(self._vault.objects.delete, f"data/{data}")
            raise
        if job.data != data:
            await to_thread.run_sync(self._vault.objects.delete, f"data/{data}")
        return job

    async def _once(self, submission: Submission, path: Path | None, submit: Callable[[str], Awaitable[Job]]) -> Job:
        """The job that was made of a submission before, else the one that `submit` makes where nothing is against it.

        Parameters
        ----------
        path
            Of the archive, where that is here.
        submit
            Is given the lineage of the model.
        """
        if (made := await self._made(submission.job_id)) is not None:
            return made
        if path is not None and not path.is_file():
            raise DataNotFound(f"There is no file at file://{path}.")
        if isinstance(submission, EvaluationSubmission):
            return await submit(await self._expect_evaluable(submission, path))
        if path is not None:
            await self._inspect(submission.model, path)
        async with self._locks.setdefault(submission.model, asyncio.Lock()):
            try:
                lineage = await self._admit(submission)
            except TaskExists:
                # By this very job, when another replica was asked the same and was faster.
                if (made := await self._made(submission.job_id)) is not None:
                    return made
                raise
            return await submit(lineage)

    async def _made(self, job_id: str | None) -> Job | None:
        """The job that was made under this id before."""
        if job_id is None:
            return None
        with suppress(UnknownJob):
            job = await to_thread.run_sync(self._vault.jobs.get, job_id)
            await to_thread.run_sync(self._vault.audit.job, job)
            return job
        return None

    async def _inspect(self, model: str, path: Path) -> None:
        """Check an archive's entries and try its first images."""
        loaded = await self._live.get(model)
        await to_thread.run_sync(self._inspect_for, loaded.memory, path)

    def _inspect_for(self, memory: Memory, path: Path) -> None:
        definition, needed = memory.definition, memory.method.needed_classes
        inspect(path, self._limits, needed)
        probe(path, definition.input, self._limits, self._decoder.limits, definition.decoder, self._decoder, needed)

    async def _admit(self, submission: TaskSubmission) -> str:
        """The lineage of the model, when it can learn a task called so with such options."""
        model, name = submission.model, submission.task
        await self.reachable()
        await self._live.refresh(model)
        loaded = await self._live.get(model)
        loaded.memory.admit(name)
        expect_mixable(loaded.memory.definition, submission.options)
        newest = await to_thread.run_sync(approval.learned_on, self._vault.log, model)
        if newest is not None and newest.candidates:
            answered = {task.name for task in loaded.learned.tasks}
            found = find(named_tasks(newest), name)
            if found is not None and (found.learned_name not in answered or found.learned_name != name):
                raise TaskExists(f"A version that waits to be activated has a task {name!r} already.")
        if any(job.task == name for job in await to_thread.run_sync(self._vault.jobs.open_jobs, model, "learn")):
            raise TaskExists(f"A job that learns {name!r} is open already.")
        return loaded.model.lineage

    async def _submit(self, submission: Submission, data: str, lineage: str) -> Job:
        model, task, kind = submission.model, submission.task, submission.kind
        options = submission.stored()
        async with submission.job_slot():
            with traces.span("job submit", kind=SpanKind.PRODUCER, attributes={"engram.model": model}) as span:
                # The worker's lines and spans lead back to this request by what the record keeps.
                who = {"caller": submission.caller, "by": submission.by and dict(submission.by)}
                asked = {"request_id": logs.value("request_id"), **who, **traces.carrier()}
                submit = partial(
                    self._vault.jobs.submit, job_id=submission.job_id, lineage=lineage, extra=asked, kind=kind
                )
                job = await to_thread.run_sync(submit, model, task, data, options)
                await to_thread.run_sync(self._vault.audit.job, job)
                span.set_attribute("engram.job.id", job.id)
                logs.bind(job_id=job.id)
                log.info("job %s is to %s %s", job.id, kind, task, extra={"model": model, "task": task})
                await to_thread.run_sync(self._wakeups.wake, model)
            return job
