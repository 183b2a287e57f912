"""Images of a request, taken out of its body and decoded in threads."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.images import ImageLimits, decode
from engram.errors import ImageError
from service.errors.exceptions import (
    InvalidBase64,
    InvalidMultipart,
    InvalidRequest,
    ServiceError,
    TooManyImages,
    UnsupportedMediaType,
)
from service.metrics import Metrics
from service.middleware.body_limits import parse_json
from telemetry import traces

Source = bytes | ServiceError
"""An image's bytes, or why there are none."""


def asked(most: int | None = None) -> dict[str, Any]:
    """The bodies that `read` takes, for the document of the interface; with `most` images at most."""
    bounds = {"minItems": 1} | ({"maxItems": most} if most else {})
    return {
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": {"type": "string", "format": "binary"}},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["image"],
                        "properties": {
                            "image": {"type": "array", **bounds, "items": {"type": "string", "format": "binary"}}
                        },
                    }
                },
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["instances"],
                        "properties": {
                            "instances": {
                                "type": "array",
                                **bounds,
                                "items": {
                                    "type": "object",
                                    "required": ["b64"],
                                    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
                                },
                            }
                        },
                    }
                },
            },
        }
    }


async def read(request: Request, most: int) -> list[Source]:
    """The images of `request`, in order, undecoded.

    Raises
    ------
    UnsupportedMediaType, InvalidRequest, InvalidJson, InvalidMultipart, TooManyImages
    """
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "multipart/form-data":
        sources = await _from_multipart(request, most)
    elif media == "application/json":
        sources = _from_json(await _read_instances(request, most), most)
    elif media.startswith("image/") or media == "application/octet-stream":
        sources = [await request.body()]
    else:
        raise UnsupportedMediaType(
            f"{media or 'No content type'}: send image/*, application/octet-stream, multipart/form-data with image "
            "parts, or application/json with instances."
        )
    return sources


async def _from_multipart(request: Request, most: int) -> list[Source]:
    try:
        form = await request.form(max_files=most, max_fields=16)
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise TooManyImages(f"There are more images in one request than {most}.") from error
        raise InvalidMultipart(error.detail) from error
    parts = form.getlist("image")
    try:
        _bound(len(parts), most)
        if not parts:
            raise InvalidRequest("The form has no part called image.")
        return [await part.read() if isinstance(part, UploadFile) else part.encode() for part in parts]
    finally:
        await form.close()


async def _read_instances(request: Request, most: int) -> Any:
    """The body as JSON, unless it has far more in it than `most` instances: parsed, it would take 20 times its size."""
    text = await request.body()
    if sum(text.count(mark) for mark in (b"[", b"{", b",")) > 16 * (most + 1):
        raise TooManyImages(f"The body has far more in it than {most} instances.")
    return parse_json(text, "The body")


def _from_json(body: Any, most: int) -> list[Source]:
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or not instances:
        raise InvalidRequest('The body is not {"instances": [{"b64": "..."}, ...]} with at least one instance.')
    _bound(len(instances), most)
    return [_from_instance(instance) for instance in instances]


def _from_instance(instance: Any) -> Source:
    text = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        return InvalidBase64("The instance has no b64 text.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return InvalidBase64("b64 is not base64.")


def _bound(count: int, most: int) -> None:
    if count > most:
        raise TooManyImages(f"{count} images in one request; the most is {most}.")


class ImageDecoder:
    """Decoder of images in threads, so that neither the event loop nor inference waits for it."""

    def __init__(self, pool: ThreadPoolExecutor, limits: ImageLimits, metrics: Metrics) -> None:
        self._pool = pool
        self._limits = limits
        self._metrics = metrics

    async def decode(self, sources: Sequence[Source], shape: InputShape) -> list[Tensor | Exception]:
        """For each source its image (C, H, W) uint8, or the error that is its own."""
        loop = asyncio.get_running_loop()
        with traces.span("decode", attributes={"engram.images": len(sources)}):
            return await asyncio.gather(*(loop.run_in_executor(self._pool, self._one, one, shape) for one in sources))

    def _one(self, source: Source, shape: InputShape) -> Tensor | Exception:
        if isinstance(source, ServiceError):
            self._metrics.images.labels("refused").inc()
            return source
        try:
            image = decode(source, shape, self._limits)
        except ImageError as error:
            self._metrics.images.labels("refused").inc()
            return error
        self._metrics.images.labels("decoded").inc()
        return image
