"""Routes of versions, `/versions`, of their activation and of their certificates."""

from __future__ import annotations

from functools import partial
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import VersionPage, VersionResponse
from service.dependencies import Paging, Parts
from service.errors.exceptions import InvalidRequest
from service.middleware.idempotency import Key, body_fingerprint
from service.models import versions
from vault.commit_log import Commit
from vault.jobs.idempotency import Claim
from vault.models import Model

router = ScopedRouter("versions")


def answer(model: Model, commit: Commit) -> dict[str, Any]:
    """One version as JSON."""
    return {
        "version": commit.version,
        "parent": commit.parent,
        "kind": commit.kind,
        "task": commit.task,
        "tasks": [{"name": task["name"], "classes": task["classes"]} for task in commit.tasks],
        "target": commit.target,
        "job": commit.job,
        "engrams": list(commit.engrams),
        **versions.decoding_of(model, commit),
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
    of = parts.vault.models.get(model)
    return JSONResponse({"versions": [answer(of, commit) for commit in found], "next": following})


@router.get("/v1/models/{model}/versions/{version}", response_model=VersionResponse)
@requires_scope("predict")
def show(model: str, version: int, parts: Parts) -> JSONResponse:
    """One version."""
    commit = parts.vault.log.read(model, version)
    return JSONResponse(answer(parts.vault.models.get(model), commit))


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
    """Serve again what that version was, as a new version unless the current one does so; the answer names it.

    One without any task, such as version 0, takes the place of one that has some only with `allow_empty`.
    """

    async def run(claim: Claim | None) -> Response:
        activate = partial(versions.activate, parts.vault, model, version, claim, allow_empty=allow_empty)
        commit, new = await to_thread.run_sync(activate)
        await parts.refresh(model)
        where = f"/v1/models/{model}/versions/{commit.version}"
        of = await to_thread.run_sync(parts.vault.models.get, model)
        return JSONResponse(answer(of, commit), 201 if new else 200, headers={"Location": where})

    return await parts.idempotency.once(request, key, await body_fingerprint(request), run)


@router.get("/v1/models/{model}/versions/{version}/certificate")
@requires_scope("predict")
def certificate(model: str, version: int, parts: Parts) -> dict[str, Any]:
    """The retention certificate: a digest of every task's answers to the probes, and where they were computed."""
    return versions.certificate(parts.vault, model, version)
