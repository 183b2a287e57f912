"""Alive, ready, measured."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from service.errors import answer, problem
from service.runtime import Parts

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 as long as this process answers at all."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(parts: Parts, allow_empty: bool = False) -> JSONResponse:
    """200 when a model can answer, or with `allow_empty` when there is none yet; 503 before that and while draining."""
    able = [loaded for loaded in parts.live.models() if loaded.memory.tasks]
    if parts.draining.begun:
        reason = "draining"
    elif able or (allow_empty and parts.live.swept and not parts.live.failing):
        parts.metrics.ready.set(1)
        return JSONResponse({"status": "ready", "models": len(able)})
    elif not parts.live.swept:
        reason = "starting"
    elif parts.live.failing:
        reason = "no_model_loads"
    else:
        reason = "nothing_learned"
    parts.metrics.ready.set(0)
    detail = {
        "draining": "The service is about to stop.",
        "starting": "The models have not been looked at yet.",
        "no_model_loads": "No stored model can be loaded.",
        "nothing_learned": "No model has learned a task yet.",
    }[reason]
    return answer(problem(503, "not_ready", detail, reason=reason), {"Retry-After": "1"})


@router.get("/metrics", response_class=Response)
def metrics(parts: Parts) -> Response:
    """Everything measured, for Prometheus."""
    return Response(parts.metrics.text(), media_type=CONTENT_TYPE_LATEST)
