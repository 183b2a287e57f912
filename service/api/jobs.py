"""Routes of jobs, `/jobs`, and of their event streams; what requests for new ones have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from anyio import to_thread
from fastapi import Header, Query
from pydantic import BaseModel, ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.errors.exceptions import InvalidRequest, UnsupportedMediaType
from service.errors.problem_details import invalid
from service.jobs import upload
from service.jobs.data_uris import allowed_uri
from service.jobs.event_streams import EventStream
from service.jobs.submission import JobSlot, Submission
from service.middleware.body_limits import read_json
from service.middleware.idempotency import body_fingerprint, fingerprint
from vault.coordination.events import LAST_ID
from vault.errors import JobOver
from vault.jobs.idempotency import Claim
from vault.jobs.job import Job, JobKind

router = ScopedRouter("jobs")

Body = TypeVar("Body", bound=BaseModel)


class JobError(BaseModel):
    code: str
    detail: str


class JobResponse(BaseModel):
    """One job, from its request to its result."""

    id: str
    kind: JobKind
    model: str
    task: str
    """The task to learn; of an evaluation that of all its images, empty where their folders say it."""
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    phase: str | None
    progress: dict[str, Any] | None
    """`fraction` of the whole, `epoch`, `loss`, `accuracy`, `units`, as far as there are any: of a running job now, of
    one that failed or was cancelled at its last report, unless that is forgotten; a `fraction` of 1 of one that
    succeeded."""
    attempts: int
    created_at: str
    finished_at: str | None
    """When it ended, in any way; null of an open one."""
    error: JobError | None
    result: dict[str, Any] | None
    """Of one that has learned `version`, `task` and `report`; of one that has evaluated `evaluation`."""


class AcceptedResponse(BaseModel):
    job: JobResponse


class JobPage(BaseModel):
    jobs: list[JobResponse]
    next: str | None


def answer(job: Job) -> dict[str, Any]:
    """One job as JSON."""
    return {
        "id": job.id,
        "kind": job.kind,
        "model": job.model,
        "task": job.task,
        "state": job.state,
        "phase": job.phase,
        "progress": job.progress or None,
        "attempts": job.attempts,
        "created_at": job.created_at,
        "finished_at": job.finished_at,
        "error": job.error,
        "result": job.result,
    }


def accepted(job: Job) -> JSONResponse:
    """The answer to who has submitted a job."""
    return JSONResponse({"job": answer(job)}, 202, headers={"Location": f"/v1/jobs/{job.id}"})


@dataclass(frozen=True)
class JobRequest(ABC):
    """Request for a job of a model on labelled images: a form with an archive, or JSON that says where one is."""

    request: Request
    model: str
    parts: Runtime

    required: ClassVar[tuple[str, ...]] = ()
    """Texts that a form has beside its part `data`."""
    texts: ClassVar[tuple[str, ...]]
    """All texts that it may have."""

    @abstractmethod
    async def of_form(self, fields: Mapping[str, str], claim: Claim | None) -> Submission:
        """What the texts of a form ask for; raises what refuses it."""

    @abstractmethod
    async def of_json(self, document: Any, claim: Claim | None) -> tuple[Submission, str]:
        """What a body asks for, and the address of the data; raises what refuses it."""

    async def answer(self, key: str | None) -> Response:
        """Make the job, once under an idempotency key, and answer with it; raises what refuses it."""
        # Refused before data is read: what cannot be done now, and what is beyond a quota.
        await self.parts.live.get(self.model)
        await self.parts.submissions.reachable()
        if key is None:
            await self.parts.quotas.check_jobs(self.request)
        media = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media == "multipart/form-data":
            with self.parts.uploads.held():
                return await self._from_form(key)
        if media == "application/json":
            asked = await body_fingerprint(self.request)
            return await self.parts.idempotency.once(self.request, key, asked, self._from_json)
        needed = " and ".join((*self.required, "data"))
        raise UnsupportedMediaType(
            f"{media or 'No content type'}: send multipart/form-data with {needed}, or application/json."
        )

    async def _from_form(self, key: str | None) -> Response:
        async with upload.receive(self.request, "data", self.texts) as received:
            self.parts.metrics.uploads.inc(received.size)
            asked = fingerprint(self.request, {**received.fields, "data": received.digest.hexdigest()})
            return await self.parts.idempotency.once(self.request, key, asked, partial(self._from_upload, received))

    async def _from_upload(self, received: upload.Upload, claim: Claim | None) -> Response:
        there = {*received.fields, *(["data"] if received.has_file else [])}
        if missing := [part for part in (*self.required, "data") if part not in there]:
            raise InvalidRequest(f"The form has no part called {missing[0]}.")
        submission = await self.of_form(received.fields, claim)
        return accepted(await self.parts.submissions.from_file(submission, received.path))

    async def _from_json(self, claim: Claim | None) -> Response:
        submission, uri = await self.of_json(await read_json(self.request), claim)
        allowed = await to_thread.run_sync(allowed_uri, uri, self.parts.settings.data_uri_prefixes)
        return accepted(await self.parts.submissions.from_uri(submission, allowed))

    def owner(self, claim: Claim | None) -> tuple[str, str | None, JobSlot]:
        """Whose the job is, the id that it is to have, and the block that it is made in."""
        job_id = None if claim is None else claim.id
        # What was asked under a key before is not counted a second time.
        return self.request.state.caller, job_id, partial(self.parts.quotas.job_slot, self.request, job_id)

    @staticmethod
    def read(model: type[Body], document: Any) -> Body:
        """A body as its model has it; raises InvalidRequest."""
        try:
            return model.model_validate(document)
        except ValidationError as error:
            raise invalid(error, "body") from error


@router.get("/v1/jobs", response_model=JobPage)
@requires_scope("learn", 404)
def index(page: Paging, parts: Parts, model: Annotated[str | None, Query()] = None) -> JSONResponse:
    """Jobs, the newest first, of all models or of one."""
    jobs = parts.vault.jobs.list(model, before=page.position, limit=page.fetch)
    found, following = page.cut(jobs, lambda job: job.id)
    return JSONResponse({"jobs": [answer(job) for job in found], "next": following})


@router.get("/v1/jobs/{job}", response_model=JobResponse)
@requires_scope("learn")
async def show(job: str, parts: Parts) -> JSONResponse:
    """One job; when it has succeeded, this replica answers with the version it made."""
    found = await to_thread.run_sync(parts.vault.jobs.get, job)
    if found.state == "succeeded":
        await _catch_up(parts, found)
    return JSONResponse(answer(found))


@router.post(
    "/v1/jobs/{job}/cancel",
    status_code=202,
    response_model=JobResponse,
    responses={200: {"model": JobResponse, "description": "It is cancelled; nobody works on it."}},
)
@requires_scope("learn", 409)
def cancel(request: Request, job: str, parts: Parts) -> JSONResponse:
    """Ask for a job's end: at once when it waits, at its next step when it runs."""
    found = parts.vault.jobs.request_cancel(job, author(request))
    parts.vault.audit.cancellation(found, parts.vault.jobs.cancellation(job))
    if found.state in ("succeeded", "failed"):
        raise JobOver(job)
    return JSONResponse(answer(found), 200 if found.over else 202)


@router.get(
    "/v1/jobs/{job}/events",
    response_class=EventSourceResponse,
    responses={204: {"description": "The last event was seen; there is nothing to come back for."}},
)
@requires_scope("learn")
async def events(
    job: str, parts: Parts, last_event_id: Annotated[str | None, Header(max_length=64)] = None
) -> Response:
    """A job's events as they come, from the beginning or after `Last-Event-ID`, until its last one.

    204 tells who has that one already, such as a browser that connects again by itself, to stop asking.
    """
    found = await to_thread.run_sync(parts.vault.jobs.get, job)
    if last_event_id == LAST_ID and found.over:
        return Response(status_code=204)
    return EventStream(parts.streams, job, _follow(parts, job, last_event_id), parts.settings.ping_seconds)


async def _follow(parts: Runtime, job: str, last_id: str | None) -> AsyncGenerator[ServerSentEvent, None]:
    follow = parts.vault.events.follow(job, last_id, lambda: parts.vault.jobs.last_event(job))
    assert isinstance(follow, AsyncGenerator), "it has connections to give back"
    async with aclosing(follow) as stream:
        async for name, event in stream:
            if event.get("state") == "succeeded":
                await _catch_up(parts, await to_thread.run_sync(parts.vault.jobs.get, job))
            kind = "progress" if event.get("phase") else "state"
            yield ServerSentEvent(json.dumps(event), event=kind, id=name)


async def _catch_up(parts: Runtime, job: Job) -> None:
    """Have the version of a succeeded job in service, in all processes, before its maker hears of it."""
    version = (job.result or {}).get("version", 0)
    live = {loaded.name: loaded.version for loaded in parts.live.models()}
    if live.get(job.model, -1) < version:
        await parts.refresh(job.model)
    else:
        await parts.siblings.follow(job.model, live[job.model])
