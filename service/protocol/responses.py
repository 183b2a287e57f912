"""Answers of the Open Inference Protocol by REST: JSON, or JSON and tensors behind it."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response

from service.errors.problem_details import answer, describe, response, status_of
from service.protocol.inference import Inferred, RefusedImage
from service.protocol.requests import LENGTH_HEADER


def encoded(inferred: Inferred) -> Response:
    """An answer, whose tensors lie behind the JSON where they were asked for so."""
    found: dict[str, Any] = {"model_name": inferred.model, "model_version": str(inferred.version)}
    if inferred.id is not None:
        found["id"] = inferred.id
    found["outputs"] = outputs = []
    pieces: list[bytes] = []
    for wanted, tensor in inferred.outputs:
        about: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if wanted.binary:
            pieces.append(data := tensor.encoded())
            about["parameters"] = {"binary_data_size": len(data)}
        else:
            about["data"] = tensor.listed()
        outputs.append(about)
    text = orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)
    if not pieces:
        return Response(text, media_type="application/json")
    headers = {LENGTH_HEADER: str(len(text))}
    return Response(b"".join((text, *pieces)), media_type="application/octet-stream", headers=headers)


def refusal(refused: RefusedImage) -> Response:
    """The answer to a request one of whose images cannot be answered, which names that image."""
    if status_of(refused.cause) is None:
        return response(refused.cause)
    body = describe(refused.cause)
    return answer(body | {"detail": f"Image {refused.number}: {body['detail']}"})
