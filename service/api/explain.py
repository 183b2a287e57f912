"""Route of heatmaps, `/explain`."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from engram.explain.pretrained.offer import PATHS
from engram.explain.rules import COMPOSITES
from service.api.explanations import numbers
from service.api.openapi import ref
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import ExplainFields, HeatmapFormat, HeatmapResponse
from service.dependencies import Parts
from service.models.image_bodies import documented, read
from telemetry import logs

router = ScopedRouter("explain")

_COMPOSITES = (
    f"Rules of layer-wise relevance propagation: {', '.join(COMPOSITES)}; over pretrained networks also averages of "
    f"gradients: {', '.join(PATHS)}. By default what suits the model."
)
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/png": {}, "application/json": {"schema": ref(HeatmapResponse)}},
        "headers": {
            name: {"schema": {"type": "string"}} for name in ("X-Engram-Task", "X-Engram-Label", "X-Engram-Version")
        },
    }
}


@router.post(
    "/v1/models/{model}/explain",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra=documented(ExplainFields, 1),
)
@requires_scope("predict", 409, direct=True)
async def explain(
    request: Request,
    model: str,
    parts: Parts,
    target: Annotated[str | None, Query(max_length=255)] = None,
    task: str | None = None,
    composite: Annotated[str | None, Query(min_length=1, max_length=64, description=_COMPOSITES)] = None,
    format: HeatmapFormat = "overlay",
    version: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """The relevance of each pixel for the predicted label, or for `target`. Names in headers are percent-encoded.

    What the query says, a form or JSON may say as well.
    """
    loaded = await (parts.live.get(model) if version is None else parts.live.get_version(model, version))
    body = await read(request, 1, ExplainFields)
    query = {"target": target, "task": task, "version": version, "composite": composite, "format": format}
    asked = body.fields.joined(query, request)
    if version is None and asked.version is not None:
        loaded = await parts.live.get_version(model, asked.version)
    await parts.quotas.count_images(request, 1)
    definition = loaded.memory.definition
    decoded = await parts.decoder.decode(
        body.sources, definition.input, definition.decoder, gone=request.is_disconnected
    )
    image = decoded[0]
    if isinstance(image, Exception):
        raise image
    logs.bind(version=loaded.version)
    drawn = await parts.inference.heatmaps.explain(
        loaded.memory, image, asked.target, asked.task, asked.composite, asked.format
    )
    heatmap = drawn.heatmap
    headers = {
        "X-Engram-Task": quote(heatmap.task),
        "X-Engram-Label": quote(heatmap.label),
        "X-Engram-Version": str(loaded.version),
    }
    if drawn.png is None:
        about = {"task": heatmap.task, "label": heatmap.label, "composite": heatmap.composite}
        found = {"model": model, "version": loaded.version, **about, **numbers(heatmap)}
        return Response(orjson.dumps(found), media_type="application/json", headers=headers)
    return Response(drawn.png, media_type="image/png", headers=headers)
