"""Routes of KServe's first protocol, `:predict` and `:explain`, which its clients explain by."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from service.api import predict as native
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import PredictFields, PredictResponse
from service.dependencies import Parts
from service.models.image_bodies import documented

router = ScopedRouter("protocol")

_BODY = documented(PredictFields)


@router.post("/v1/models/{model}:predict", response_model=PredictResponse, openapi_extra=_BODY)
@requires_scope("predict", 409)
async def first_predict(request: Request, model: str, parts: Parts) -> Response:
    """As `/v1/models/{model}/predict`; a body without a content type is JSON."""
    return await native.predict(_as_json(request), model, parts)


@router.post("/v1/models/{model}:explain", response_model=PredictResponse, openapi_extra=_BODY)
@requires_scope("predict", 409)
async def first_explain(request: Request, model: str, parts: Parts) -> Response:
    """The same with the heatmap of each answer, as a PNG over the image unless `explain` says otherwise."""
    return await native.predict(_as_json(request), model, parts, explain="overlay")


def _as_json(request: Request) -> Request:
    """The request, which says that it is JSON where it says nothing, as KServe's client sends it."""
    if "content-type" in request.headers:
        return request
    headers = [*request.scope["headers"], (b"content-type", b"application/json")]
    return Request({**request.scope, "headers": headers}, request.receive)
