"""Routes of jobs, `/jobs`, and of their event streams."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import Header, Query
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.jobs.event_streams import EventStream
from vault.coordination.events import LAST_ID
from vault.errors import JobOver
from vault.jobs.job import Job, JobKind

router = ScopedRouter("jobs")


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
        "error": job.error,
        "result": job.result,
    }


def accepted(job: Job) -> JSONResponse:
    """The answer to who has submitted a job."""
    return JSONResponse({"job": answer(job)}, 202, headers={"Location": f"/v1/jobs/{job.id}"})


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
