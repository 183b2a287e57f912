"""Route of predictions, `/predict`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import torch
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response
from torch import Tensor

from engram.recognition.predictions import Candidate, Prediction
from service.api.explanations import explanation
from service.api.route import ScopedRouter, requires_scope
from service.api.schemas import Contenders, HeatmapFormat, PredictFields, PredictResponse
from service.dependencies import Parts, Runtime
from service.errors.exceptions import InvalidRequest
from service.errors.problem_details import describe
from service.models import batching
from service.models.image_bodies import documented, read
from service.models.loaded import LoadedVersion
from telemetry import logs

router = ScopedRouter("predict")

_EXPLAIN = "Also the heatmap of each answer's label, in this format of `/explain`; for few images at a time."


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
    explain: Annotated[HeatmapFormat | None, Query(description=_EXPLAIN)] = None,
) -> Response:
    """Answer for one image or several; an unreadable one among others has an `error` in its place.

    What the query says, a form or JSON may say as well. `contenders` bounds the tasks whose networks are run for an
    image, where a model does not run them all in any case. With `explain` each prediction has an `explanation`: the
    heatmap that `/explain` gives for it.
    """
    loaded = await (parts.live.get(model) if version is None else parts.live.get_version(model, version))
    body = await read(request, parts.settings.max_images_per_request, PredictFields)
    query = {"top_k": top_k, "task": task, "version": version, "logits": logits, "contenders": contenders}
    asked = body.fields.joined({**query, "explain": explain}, request)
    if asked.logits and asked.task is None:
        raise InvalidRequest("logits=true needs task=, whose logits are meant.")
    if version is None and asked.version is not None:
        loaded = await parts.live.get_version(model, asked.version)
    if asked.explain is not None:
        parts.inference.heatmaps.bound(len(body.sources))
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
    if asked.explain is None:
        reply = await parts.inference.predict(model, batch, asked.version)
        answered = _predictions(reply)
    else:
        with parts.inference.heatmaps.held(len(good)):
            reply = await parts.inference.predict(model, batch, asked.version)
            answered = await _explained(parts, loaded, reply, good, asked)
    logs.bind(version=reply.version)
    answers = iter(answered)
    predictions = [next(answers) if isinstance(image, Tensor) else {"error": describe(image)} for image in decoded]
    # Not through a response model: validating hundreds of predictions again would cost more than making them.
    found = {"model": model, "version": reply.version, "predictions": predictions}
    return Response(orjson.dumps(found), media_type="application/json")


async def _explained(
    parts: Runtime,
    loaded: LoadedVersion,
    reply: batching.InferenceReply,
    images: Sequence[Tensor],
    asked: PredictFields,
) -> list[dict[str, Any]]:
    """The predictions of a reply with their heatmaps."""
    assert asked.explain is not None, "heatmaps are made where they are asked for"
    if reply.version != loaded.version:  # another has gone live since the images were decoded
        loaded = await parts.live.get_version(loaded.name, reply.version)
    drawn = await parts.inference.heatmaps.explain_answers(
        loaded.memory, images, reply.answers, asked.task, asked.explain
    )
    return [
        {**prediction, "explanation": explanation(one, asked.explain)}
        for prediction, one in zip(_predictions(reply), drawn, strict=True)
    ]


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
        "calibrated": answer.calibrated,
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "task": candidate.task,
        "label": candidate.label,
        "probability": candidate.probability,
        "evidence": candidate.evidence,
        "tasks": candidate.tasks,
    }
