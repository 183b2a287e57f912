"""Routes of the Open Inference Protocol, `/v2`."""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api.route import ScopedRouter, requires_scope
from service.auth.access import ANYONE
from service.dependencies import Parts
from service.errors.problem_details import answer, problem
from service.models.soundness.readiness import DETAILS, unready
from service.protocol import metadata
from service.protocol.inference import RefusedImage, answered, loaded_version, number_of
from service.protocol.repository import described, index, ready
from service.protocol.requests import read
from service.protocol.responses import encoded, refusal

router = ScopedRouter("protocol")

_MODEL, _VERSION = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_INFERRED: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
_INDEX_BODY: dict[str, Any] = {
    "requestBody": {
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"ready": {"type": "boolean"}}}},
        }
    }
}


@router.get("/v2")
@requires_scope(ANYONE)
async def about() -> dict[str, Any]:
    """What this server is, and which extensions of the protocol it has."""
    return metadata.server()


@router.get("/v2/health/live")
@requires_scope(ANYONE)
async def live() -> dict[str, bool]:
    """200 as long as this process answers at all."""
    return {"live": True}


@router.get("/v2/health/ready")
@requires_scope(ANYONE, 503)
async def server_ready(parts: Parts) -> Response:
    """200 when a model can answer; 503 before that and while draining."""
    if (reason := unready(parts.live, parts.draining)) is not None:
        return answer(problem(503, "not_ready", DETAILS[reason], ready=False), {"Retry-After": "1"})
    return JSONResponse({"ready": True})


@router.get("/v2/models/stats")
@requires_scope("predict")
async def all_statistics(parts: Parts) -> dict[str, Any]:
    """What was asked of the models that answer, by this protocol and of this replica."""
    return {"model_stats": [metadata.statistics(one, parts.statistics) for one in parts.live.models()]}


@router.get(f"{_MODEL}/ready")
@requires_scope("predict")
async def model_ready(model: str, parts: Parts) -> Response:
    """200 when a model is loaded, warmed up and can answer; 503 when it is not, 404 when there is none."""
    return await _ready(parts, model, "")


@router.get(f"{_VERSION}/ready")
@requires_scope("predict")
async def version_ready(model: str, version: str, parts: Parts) -> Response:
    """The same of one version, which is loaded for that."""
    return await _ready(parts, model, version)


async def _ready(parts: Parts, model: str, version: str) -> Response:
    if await ready(parts, model, number_of(version)):
        return JSONResponse({"name": model, "ready": True})
    return answer(problem(503, "not_ready", DETAILS["nothing_learned"], ready=False), {"Retry-After": "1"})


@router.get(_MODEL)
@requires_scope("predict")
async def model_metadata(model: str, parts: Parts) -> dict[str, Any]:
    """Inputs and outputs of a model, its versions, and the classes of `probabilities`."""
    return metadata.model(*await described(parts, model, None))


@router.get(_VERSION)
@requires_scope("predict")
async def version_metadata(model: str, version: str, parts: Parts) -> dict[str, Any]:
    """The same of one version."""
    return metadata.model(*await described(parts, model, number_of(version)))


@router.get(f"{_MODEL}/config")
@requires_scope("predict")
async def model_config(model: str, parts: Parts) -> dict[str, Any]:
    """The metadata as Triton's clients read them."""
    loaded, _, classes = await described(parts, model, None)
    return metadata.config(loaded, classes)


@router.get(f"{_VERSION}/config")
@requires_scope("predict")
async def version_config(model: str, version: str, parts: Parts) -> dict[str, Any]:
    """The same of one version."""
    loaded, _, classes = await described(parts, model, number_of(version))
    return metadata.config(loaded, classes)


@router.get(f"{_MODEL}/stats")
@requires_scope("predict")
async def model_statistics(model: str, parts: Parts) -> dict[str, Any]:
    """What was asked of a model's live version."""
    return {"model_stats": [metadata.statistics(await loaded_version(parts, model, None), parts.statistics)]}


@router.get(f"{_VERSION}/stats")
@requires_scope("predict")
async def version_statistics(model: str, version: str, parts: Parts) -> dict[str, Any]:
    """What was asked of one version."""
    loaded = await loaded_version(parts, model, number_of(version))
    return {"model_stats": [metadata.statistics(loaded, parts.statistics)]}


@router.post("/v2/repository/index", openapi_extra=_INDEX_BODY)
@requires_scope("predict")
async def repository(request: Request, parts: Parts) -> Response:
    """All models with the version that answers, and why those do not that cannot; with `ready`, those that do."""
    return JSONResponse(index(parts, await request.body()))


@router.post(f"{_MODEL}/infer", response_class=Response, responses=_INFERRED, openapi_extra=_BODY)
@requires_scope("predict", 409, direct=True)
async def infer(request: Request, model: str, parts: Parts) -> Response:
    """Answer for one image or several: JSON, the binary extension, or an encoded picture as the body.

    The protocol has no place for what is wrong with one image of several: the request is refused, and the error names
    the image.
    """
    return await _infer(request, parts, model, "")


@router.post(f"{_VERSION}/infer", response_class=Response, responses=_INFERRED, openapi_extra=_BODY)
@requires_scope("predict", 409, direct=True)
async def version_infer(request: Request, model: str, version: str, parts: Parts) -> Response:
    """The same of one version."""
    return await _infer(request, parts, model, version)


async def _infer(request: Request, parts: Parts, model: str, version: str) -> Response:
    reader = partial(read, request, parts.settings.max_images_per_request)
    try:
        return encoded(await answered(parts, request, model, number_of(version), reader))
    except RefusedImage as refused:
        return refusal(refused)
