"""Bodies of the Open Inference Protocol, put together here a second time."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import numpy
from numpy.typing import NDArray

from testing.data.models import MODEL

INFER = f"/v2/models/{MODEL}/infer"
LENGTH = "Inference-Header-Content-Length"
KINDS = {"FP32": "<f4", "BOOL": "?", "UINT8": "u1"}


def elements(*data: bytes) -> bytes:
    """A BYTES tensor."""
    return b"".join(struct.pack("<I", len(one)) + one for one in data)


def binary(given: dict[str, Any], *raw: bytes) -> dict[str, Any]:
    """Content and headers of a request in the binary extension."""
    text = json.dumps(given).encode()
    return {"content": text + b"".join(raw), "headers": {LENGTH: str(len(text))}}


def pictures(*data: bytes, outputs: list[dict[str, Any]] | None = None, **parameters: Any) -> dict[str, Any]:
    """A request with encoded pictures behind its JSON, whose answer is binary unless `parameters` says otherwise."""
    raw = elements(*data)
    one = {"name": "image", "shape": [len(data)], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    given: dict[str, Any] = {"inputs": [one], "parameters": {"binary_data_output": True, **parameters}}
    return binary(given | ({"outputs": outputs} if outputs else {}), raw)


def outputs(answer: httpx.Response) -> dict[str, NDArray[Any]]:
    """The outputs of an answer, binary or not, in their shapes."""
    assert answer.status_code == 200, answer.text
    size = int(answer.headers.get(LENGTH, len(answer.content)))
    rest, found = answer.content[size:], {}
    assert answer.headers["Content-Type"] == ("application/octet-stream" if rest else "application/json")
    for one in json.loads(answer.content[:size])["outputs"]:
        shape, kind = one["shape"], one["datatype"]
        if "data" in one:
            found[one["name"]] = numpy.array(one["data"], object if kind == "BYTES" else KINDS[kind]).reshape(shape)
            continue
        data, rest = (
            rest[: one["parameters"]["binary_data_size"]],
            rest[one["parameters"]["binary_data_size"] :],
        )
        if kind == "BYTES":
            texts = []
            while data:
                (length,) = struct.unpack_from("<I", data)
                texts.append(data[4 : 4 + length].decode())
                data = data[4 + length :]
            found[one["name"]] = numpy.array(texts, object).reshape(shape)
        else:
            found[one["name"]] = numpy.frombuffer(data, KINDS[kind]).reshape(shape)
    assert rest == b""
    return found


def refused(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which is told as the protocol tells it."""
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert isinstance(body["error"], str)
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return answer.status_code, body["code"]
