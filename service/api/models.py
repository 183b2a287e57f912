"""Routes of models, `/models`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import orjson
from anyio import to_thread
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engram.drift.monitor import State
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import (
    ModelChangeRequest,
    ModelPage,
    ModelRequest,
    ModelResponse,
    ModelSummary,
    ProblemResponse,
)
from service.auth.access import author
from service.dependencies import Paging, Parts, Runtime
from service.middleware.idempotency import Key, body_fingerprint
from service.models import versions
from service.models.changes import adoption
from service.models.loaded import LoadedVersion
from service.models.soundness.problems import Problem
from vault import approval
from vault.commit_log import Commit
from vault.errors import UnknownModel, Unreadable
from vault.jobs.idempotency import Claim
from vault.models import Model
from vault.storage.parallel import parallel_map
from vault.vault import Vault

router = ScopedRouter("models")


def answer(loaded: LoadedVersion, head: Commit, problems: list[Problem]) -> dict[str, Any]:
    """One model as JSON, with what keeps its versions out of service, from being learned on, or from being had.

    Parameters
    ----------
    head
        Its newest version, which may wait to be activated.
    """
    memory = loaded.memory
    return {
        "name": loaded.name,
        "version": loaded.version,
        "publish": head.publish,
        "candidates": list(head.candidates),
        **memory.definition.model_dump(mode="json"),
        "exact": memory.exact,
        "budget": memory.budget,
        "tasks": [task.to_dict() for task in loaded.tasks],
        "capacity": [layer.to_dict() for layer in memory.capacity()],
        "problems": [asdict(problem) for problem in problems],
        "created_at": loaded.model.created_at,
    }


async def _answer(parts: Runtime, name: str) -> dict[str, Any]:
    return _shown(parts, await parts.live.get(name))


def _shown(parts: Runtime, loaded: LoadedVersion) -> dict[str, Any]:
    name = loaded.name
    return answer(loaded, parts.live.head(loaded), parts.live.problems(name) + parts.integrity.problems(name))


@router.post(
    "/v1/models",
    status_code=201,
    response_model=ModelResponse,
    responses={200: {"model": ModelResponse, "description": "There is this very model already; nothing was made."}},
)
@requires_scope("admin", 409)
async def create(request: Request, body: ModelRequest, parts: Parts, key: Key) -> Response:
    """Make a model; asking for one that is there answers with it, for another of its name is refused.

    The status tells the two apart. A request that is made again under its `Idempotency-Key` is answered 201 again.
    """

    async def run(claim: Claim | None) -> Response:
        if body.adopt is not None:
            await to_thread.run_sync(adoption.check, parts.vault, body.definition())
        by = author(request)
        make = partial(versions.create, parts.vault, body.name, body.definition(), claim, publish=body.publish, by=by)
        made = await to_thread.run_sync(make)
        if body.adopt is not None:
            await to_thread.run_sync(adoption.adopt, parts.vault, body.name, body.adopt, by)
        await parts.refresh(body.name)
        where = f"/v1/models/{body.name}"
        return JSONResponse(await _answer(parts, body.name), 201 if made else 200, headers={"Location": where})

    return await parts.idempotency.once(request, key, await body_fingerprint(request), run)


@router.get("/v1/models", response_model=ModelPage)
@requires_scope("predict")
def index(page: Paging, parts: Parts) -> ModelPage:
    """All models by name."""
    found, following = page.cut(parts.vault.models.list(page.position, page.fetch), lambda model: model.name)
    return ModelPage(models=parallel_map(partial(_summary, parts.vault), found), next=following)


def _summary(vault: Vault, model: Model) -> ModelSummary:
    serving = None
    # Deleted since it was listed, or damaged.
    with suppress(UnknownModel, Unreadable):
        head = approval.newest(vault.log, model.name)
        serving = head and approval.answering(vault.log, model.name, head)
    return ModelSummary(
        name=model.name,
        version=serving.version if serving else 0,
        tasks=len(serving.tasks) if serving else 0,
        created_at=model.created_at,
    )


class ModelOverview(ModelSummary):
    """A model in the overview: what a list says of it, and how it is."""

    method: str | None
    backbone: str | None
    exact: bool | None
    """As in the answer for the model; null, as the two before it, where no version of it can be loaded."""
    novelty: State | None
    """The state of its novelty monitors, the worst of all replicas; null where nothing answers."""
    samples: int
    """Images that this version has answered without being told their task."""
    problems: list[ProblemResponse]


class OverviewPage(BaseModel):
    models: list[ModelOverview]
    next: str | None


@router.get("/v1/summary", response_model=OverviewPage)
@requires_scope("predict")
async def overview(page: Paging, parts: Parts) -> JSONResponse:
    """All models by name, each with what answers, its novelty and its problems, out of this replica's memory."""
    live = {loaded.name: loaded for loaded in parts.live.models()}
    known = live.keys() | parts.live.troubled()
    if not parts.live.swept:  # it has just begun, and does not know all of them yet
        known |= {model.name for model in await to_thread.run_sync(parts.vault.models.list)}
    names = sorted(name for name in known if page.position is None or name > page.position)
    shown, following = page.cut(names[: page.fetch], str)
    loaded = [live[name] for name in shown if name in live]
    states = dict(zip((one.name for one in loaded), await parts.novelty.states(loaded), strict=True))
    models = [_overview(parts, name, live.get(name), states.get(name, (None, 0))) for name in shown]
    return JSONResponse({"models": models, "next": following})


def _overview(
    parts: Runtime, name: str, loaded: LoadedVersion | None, novelty: tuple[State | None, int]
) -> dict[str, Any]:
    definition = loaded and loaded.memory.definition
    problems = parts.live.problems(name) + parts.integrity.problems(name)
    return {
        "name": name,
        "version": loaded.version if loaded else 0,
        "tasks": len(loaded.memory.tasks) if loaded else 0,
        "created_at": loaded.model.created_at if loaded else "",
        "method": definition and definition.method,
        "backbone": definition and definition.backbone,
        "exact": loaded and loaded.memory.exact,
        "novelty": novelty[0],
        "samples": novelty[1],
        "problems": [asdict(problem) for problem in problems],
    }


@router.get("/v1/models/{model}", response_model=ModelResponse)
@requires_scope("predict", direct=True)
async def show(request: Request, model: str, parts: Parts) -> Response:
    """One model with its version, its tasks and its capacity."""
    found = _shown(parts, await parts.live.newest(model))
    return Response(orjson.dumps(found), media_type="application/json")


@router.patch("/v1/models/{model}", response_model=ModelResponse)
@requires_scope("admin", 409)
async def change(request: Request, model: str, body: ModelChangeRequest, parts: Parts) -> JSONResponse:
    """Give a model more room, or have it decode images or publish otherwise from its next version on.

    Its weights stay the same. Another decoder may change answers to encoded images. Activating an older version brings
    its decoder back. While candidates wait nothing is changed.
    """
    by = author(request)
    await to_thread.run_sync(versions.change, parts.vault, model, body.budget, body.decoding(), body.publish, by)
    await parts.refresh(model)
    return JSONResponse(await _answer(parts, model))


@router.delete("/v1/models/{model}", status_code=204)
@requires_scope("admin")
async def delete(request: Request, model: str, parts: Parts) -> Response:
    """Delete a model with its history; its open jobs are cancelled."""
    await to_thread.run_sync(parts.vault.delete_model, model, author(request))
    await parts.refresh(model)
    return Response(status_code=204)
