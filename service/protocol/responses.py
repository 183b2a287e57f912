"""Answers of the Open Inference Protocol by REST: JSON, or JSON and tensors behind it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import orjson
from starlette.responses import Response

from service.errors.problem_details import answer, describe, response, status_of
from service.protocol.inference import Inferred, RefusedImage
from service.protocol.requests import LENGTH_HEADER


def encoded(inferred: Inferred) -> Response:
    """An answer, whose tensors lie behind the JSON where they were asked for so."""
    if all(wanted.binary for wanted in inferred.wanted):
        pieces = [tensor.encoded() for tensor in inferred.outputs]
        told = [
            (one.name, one.datatype, one.shape, len(data)) for one, data in zip(inferred.outputs, pieces, strict=True)
        ]
        if inferred.id is None:
            return _binary(_head(inferred.model, inferred.version, tuple(told)), pieces)
        return _binary(_told(inferred.model, inferred.version, inferred.id, list(map(_sized, told))), pieces)
    pieces, outputs = [], []
    for wanted, tensor in zip(inferred.wanted, inferred.outputs, strict=True):
        if wanted.binary:
            pieces.append(data := tensor.encoded())
            outputs.append(_sized((tensor.name, tensor.datatype, tensor.shape, len(data))))
        else:
            about = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
            outputs.append({**about, "data": tensor.listed()})
    text = _told(inferred.model, inferred.version, inferred.id, outputs)
    return _binary(text, pieces) if pieces else Response(text, media_type="application/json")


Sized = tuple[str, str, tuple[int, ...], int]
"""Name, datatype, shape and bytes of an output that lies behind the JSON."""


def _binary(text: bytes, pieces: list[bytes]) -> Response:
    headers = {LENGTH_HEADER: str(len(text))}
    return Response(b"".join((text, *pieces)), media_type="application/octet-stream", headers=headers)


def _sized(told: Sized) -> dict[str, Any]:
    name, datatype, shape, size = told
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


# Of few kinds, as long as all that is asked is alike: then only the tensors behind it differ.
@lru_cache(maxsize=1024)
def _head(model: str, version: int, outputs: tuple[Sized, ...]) -> bytes:
    return _told(model, version, None, [_sized(one) for one in outputs])


def _told(model: str, version: int, identity: str | None, outputs: list[dict[str, Any]]) -> bytes:
    named = {} if identity is None else {"id": identity}
    found = {"model_name": model, "model_version": str(version), **named, "outputs": outputs}
    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY)


def refusal(refused: RefusedImage) -> Response:
    """The answer to a request one of whose images cannot be answered, which names that image."""
    if status_of(refused.cause) is None:
        return response(refused.cause)
    body = describe(refused.cause)
    return answer(body | {"detail": f"Image {refused.number}: {body['detail']}"})
