"""Routes of health and metrics: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.auth.access import ANYONE
from service.dependencies import Parts
from service.errors.problem_details import answer, problem
from service.lifecycle.merged_metrics import merged
from service.models.soundness.readiness import DETAILS, unready

router = ScopedRouter("health")


@router.get("/livez")
@requires_scope(ANYONE)
async def livez() -> dict[str, str]:
    """200 as long as this process answers at all."""
    return {"status": "alive"}


@router.get("/readyz")
@requires_scope(ANYONE, 422, 503)
async def readyz(parts: Parts, allow_empty: bool = False) -> JSONResponse:
    """200 when a model can answer, or with `allow_empty` when there is none yet; 503 before that and while draining."""
    reason = unready(parts.live, parts.draining)
    if reason is None or (allow_empty and reason == "nothing_learned"):
        able = sum(bool(loaded.memory.tasks) for loaded in parts.live.models())
        return JSONResponse({"status": "ready", "models": able})
    return answer(problem(503, "not_ready", DETAILS[reason], reason=reason), {"Retry-After": "1"})


@router.get("/metrics", response_class=Response)
@requires_scope("predict")
async def metrics(parts: Parts) -> Response:
    """Everything measured, for Prometheus, by all processes of this service; in the event loop, since threads may all
    wait for the store."""
    own, others = parts.metrics.text(), await parts.siblings.measured()
    return Response(merged([own, *others]) if others else own, media_type=CONTENT_TYPE_LATEST)
