"""Models: made, listed, widened, deleted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from anyio import to_thread
from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from service import history
from service.live import Loaded
from service.runtime import Paging, Parts
from service.schemas import BudgetRequest, ModelAnswer, ModelPage, ModelRequest, ModelSummary
from vault.errors import UnknownModel
from vault.models import Model
from vault.vault import Vault

router = APIRouter(tags=["models"])


def answer(loaded: Loaded) -> dict[str, Any]:
    """One model as JSON."""
    memory = loaded.memory
    return {
        "name": loaded.name,
        "version": loaded.version,
        **memory.definition.model_dump(mode="json"),
        "budget": memory.budget,
        "tasks": [{"name": task.name, "classes": list(task.classes)} for task in memory.tasks],
        "capacity": [layer.to_dict() for layer in memory.capacity()],
        "created_at": loaded.model.created_at,
    }


@router.post("/v1/models", status_code=201, response_model=ModelAnswer)
async def create(body: ModelRequest, parts: Parts) -> JSONResponse:
    """Make a model; asking for the same one again answers with it, for another of this name is refused."""
    await to_thread.run_sync(history.create, parts.vault, body.name, body.definition())
    await parts.live.refresh(body.name)
    loaded = await parts.live.get(body.name)
    return JSONResponse(answer(loaded), 201, headers={"Location": f"/v1/models/{body.name}"})


@router.get("/v1/models", response_model=ModelPage)
def index(page: Paging, parts: Parts) -> ModelPage:
    """All models by name."""
    found, following = page.cut(parts.vault.models.list(page.position, page.fetch), lambda model: model.name)
    with ThreadPoolExecutor(8) as pool:  # a log each, and a bucket may be far away
        return ModelPage(models=[*pool.map(partial(_summary, parts.vault), found)], next=following)


def _summary(vault: Vault, model: Model) -> ModelSummary:
    try:
        head = vault.log.head(model.name)
    except UnknownModel:  # deleted since it was listed
        head = None
    return ModelSummary(
        name=model.name,
        version=head.version if head else 0,
        tasks=len(head.tasks) if head else 0,
        created_at=model.created_at,
    )


@router.get("/v1/models/{model}", response_model=ModelAnswer)
async def show(model: str, parts: Parts) -> JSONResponse:
    """One model with its version, its tasks and its capacity."""
    await parts.live.refresh(model)
    return JSONResponse(answer(await parts.live.get(model)))


@router.patch("/v1/models/{model}", response_model=ModelAnswer)
async def widen(model: str, body: BudgetRequest, parts: Parts) -> JSONResponse:
    """Give a model more room; what it has learned stays as it is."""
    await to_thread.run_sync(history.raise_budget, parts.vault, model, body.budget)
    await parts.live.refresh(model)
    return JSONResponse(answer(await parts.live.get(model)))


@router.delete("/v1/models/{model}", status_code=204)
async def delete(model: str, parts: Parts) -> Response:
    """Delete a model with its history; its open jobs are cancelled."""
    await to_thread.run_sync(_delete, parts.vault, model)
    await parts.live.refresh(model)
    return Response(status_code=204)


def _delete(vault: Vault, model: str) -> None:
    vault.models.delete(model)
    for job in vault.jobs.open_jobs(model):
        vault.jobs.request_cancel(job.id)
    vault.events.publish_deleted(model)
