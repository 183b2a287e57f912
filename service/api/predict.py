"""Route of predictions, `/predict`."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import torch
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from engram.recognition.predictions import Candidate, Prediction
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import Contenders, PredictFields, PredictResponse
from service.dependencies import Parts
from service.errors.exceptions import InvalidRequest
from service.errors.problem_details import describe
from service.models import batching
from service.models.image_bodies import documented, read
from telemetry import logs

router = ScopedRouter("predict")


@router.post("/v1/models/{model}/predict", response_model=PredictResponse, openapi_extra=documented(PredictFields))
@requires_scope("predict", 409, direct=True)
async def predict(
    request: Request,
    model: str,
    parts: Parts,
    top_k: Annotated[int, Query(ge=1, le=100)] = 1,
    task: str | None = None,
    version: Annotated[int | None, Query(ge=0)] = None,
    logits: bool = False,
    contenders: Contenders | None = None,
) -> Response:
    """Answer for one image or several; an unreadable one among others has an `error` in its place.

    What the query says, a form or JSON may say as well. `contenders` bounds the tasks whose networks are run for an
    image, where a model does not run them all in any case.
    """
    loaded = await (parts.live.get(model) if version is None else parts.live.get_version(model, version))
    body = await read(request, parts.settings.max_images_per_request, PredictFields)
    query = {"top_k": top_k, "task": task, "version": version, "logits": logits, "contenders": contenders}
    asked = body.fields.joined(query, request.query_params)
    if asked.logits and asked.task is None:
        raise InvalidRequest("logits=true needs task=, whose logits are meant.")
    if version is None and asked.version is not None:
        loaded = await parts.live.get_version(model, asked.version)
    await parts.quotas.count_images(request, len(body.sources))
    definition = loaded.memory.definition
    decoded = await parts.decoder.decode(
        body.sources, definition.input, definition.decoder, gone=request.is_disconnected
    )
    good = [image for image in decoded if isinstance(image, Tensor)]
    if not good:
        raise next(failure for failure in decoded if isinstance(failure, Exception))
    batch = batching.InferenceRequest(
        torch.stack(good) if len(good) > 1 else good[0][None],
        asked.task,
        asked.top_k,
        asked.logits,
        loaded,
        asked.contenders,
    )
    reply = await parts.inference.predict(model, batch, asked.version)
    logs.bind(version=reply.version)
    answers = iter(_predictions(reply))
    predictions = [next(answers) if isinstance(image, Tensor) else {"error": describe(image)} for image in decoded]
    # Not through a response model: validating hundreds of predictions again would cost more than making them.
    found = {"model": model, "version": reply.version, "predictions": predictions}
    return Response(orjson.dumps(found), media_type="application/json")


def _predictions(reply: batching.InferenceReply) -> list[dict[str, Any]]:
    predictions = [_prediction(answer) for answer in reply.answers]
    if reply.logits is not None:
        for prediction, row in zip(predictions, reply.logits, strict=True):
            prediction["logits"] = row
    return predictions


def _prediction(answer: Prediction) -> dict[str, Any]:
    return {
        "task": answer.task,
        "task_probability": answer.task_probability,
        "label": answer.label,
        "probability": answer.probability,
        "top": [_candidate(candidate) for candidate in answer.top],
        "known": answer.known,
        "novelty": answer.novelty,
        "passes": answer.passes,
        "ran": answer.ran,
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "task": candidate.task,
        "label": candidate.label,
        "probability": candidate.probability,
        "evidence": candidate.evidence,
        "tasks": candidate.tasks,
    }
