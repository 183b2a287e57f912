"""Routes of versions, `/versions`, of their activation and of their certificates."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio import to_thread
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import TaskSummary
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.errors.exceptions import InvalidRequest
from service.middleware.idempotency import Key, body_fingerprint
from service.models import certificates, versions
from vault import approval
from vault.approval import Status
from vault.classes.names import named, named_tasks
from vault.commit_log import Commit
from vault.jobs.idempotency import Claim
from vault.models import Model
from vault.vault import Vault

router = ScopedRouter("versions")


class RenamedResponse(BaseModel):
    """What is shown of a task otherwise than before: its name, and labels by what they were."""

    before: str = Field(alias="from")
    to: str
    labels: dict[str, str]


class VersionResponse(BaseModel):
    """One entry of a model's history."""

    version: int
    status: Status = "past"
    """Whether it is the one that answers, or waits to be activated."""
    parent: int | None
    kind: str
    task: str | None
    tasks: list[TaskSummary]
    renamed: RenamedResponse | None = None
    """Of a `rename`: what became of the names of `task`."""
    target: int | None
    job: str | None
    engrams: list[str]
    decoder: int | None = None
    """Number of the way that it decodes images; null where that is not known."""
    background: str | None = None
    """Colour that it lays transparent parts of images over, where one is named."""
    engine: str | None = None
    """What computes its answers, by name and number; null where that is not known."""
    created_at: str


class VersionPage(BaseModel):
    versions: list[VersionResponse]
    next: str | None


def answer(model: Model, commit: Commit, head: Commit) -> dict[str, Any]:
    """One version as JSON, while `head` is the newest."""
    return {
        "version": commit.version,
        "status": approval.status(commit.version, head),
        "parent": commit.parent,
        "kind": commit.kind,
        "task": commit.task and named(commit, commit.task),
        "tasks": [task.to_dict() for task in named_tasks(commit)],
        **({} if commit.renamed is None else {"renamed": commit.renamed}),
        "target": commit.target,
        "job": commit.job,
        "engrams": list(commit.engrams),
        **versions.decoding_of(model, commit),
        "engine": versions.engine_of(model),
        "created_at": commit.created_at,
    }


@router.get("/v1/models/{model}/versions", response_model=VersionPage)
@requires_scope("predict")
def index(model: str, page: Paging, parts: Parts) -> JSONResponse:
    """A model's history, the newest first."""
    if page.position is not None and not page.position.isdecimal():
        raise InvalidRequest("after is not a cursor of this list.")
    after = None if page.position is None else int(page.position)
    commits = parts.vault.log.list(model, after, page.fetch, newest_first=True, lenient=True)
    found, following = page.cut(commits, lambda commit: str(commit.version))
    of, head = parts.vault.models.get(model), approval.newest(parts.vault.log, model)
    return JSONResponse({"versions": [answer(of, commit, head or commit) for commit in found], "next": following})


@router.get("/v1/models/{model}/versions/{version}", response_model=VersionResponse)
@requires_scope("predict")
def show(model: str, version: int, parts: Parts) -> JSONResponse:
    """One version."""
    return JSONResponse(_shown(parts.vault, model, parts.vault.log.read(model, version)))


def _shown(vault: Vault, model: str, commit: Commit) -> dict[str, Any]:
    return answer(vault.models.get(model), commit, approval.newest(vault.log, model) or commit)


@router.post(
    "/v1/models/{model}/versions/{version}/activate",
    status_code=201,
    response_model=VersionResponse,
    responses={200: {"model": VersionResponse, "description": "The current version serves that already."}},
)
@requires_scope("admin", 409)
async def activate(
    request: Request, model: str, version: int, parts: Parts, key: Key, allow_empty: bool = False
) -> Response:
    """Serve what that version was, as a new version unless the current one does so; the answer names it.

    It may be a candidate, with which the candidates before it wait no longer, or one that was served before. One
    without any task, such as version 0, takes the place of one that has some only with `allow_empty`.
    """

    async def run(claim: Claim | None) -> Response:
        by = author(request)
        activate = partial(versions.activate, parts.vault, model, version, claim, allow_empty=allow_empty, by=by)
        return await made(parts, model, *await to_thread.run_sync(activate))

    return await parts.idempotency.once(request, key, await body_fingerprint(request), run)


@router.post("/v1/models/{model}/versions/{version}/reject", status_code=201, response_model=VersionResponse)
@requires_scope("admin", 409)
async def reject(request: Request, model: str, version: int, parts: Parts, key: Key) -> Response:
    """Have a candidate wait no longer, nor those that were learned on it; the answer is the version that says so.

    What answers stays as it is, and the next task is learned without them. They can still be asked for, and activated.
    """

    async def run(claim: Claim | None) -> Response:
        reject = partial(versions.reject, parts.vault, model, version, claim, by=author(request))
        return await made(parts, model, *await to_thread.run_sync(reject))

    return await parts.idempotency.once(request, key, await body_fingerprint(request), run)


async def made(parts: Runtime, model: str, commit: Commit, new: bool) -> Response:
    """The answer that names a version which a request has made, or which was there."""
    await parts.refresh(model)
    shown = await to_thread.run_sync(_shown, parts.vault, model, commit)
    where = f"/v1/models/{model}/versions/{commit.version}"
    return JSONResponse(shown, 201 if new else 200, headers={"Location": where})


@router.get("/v1/models/{model}/versions/{version}/certificate")
@requires_scope("predict")
def certificate(model: str, version: int, parts: Parts) -> dict[str, Any]:
    """The retention certificate: a digest of every task's answers to the probes, and where they were computed.

    Beside it its `signature`, and `digests`: those of the same answers in other environments that have served them.
    """
    return certificates.certificate(parts.vault, model, version)
