"""Calls of the gRPC service: each is let in, counted and logged as a request by HTTP is."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from starlette.requests import Request

from engram.config.input_shape import InputShape
from service.auth.access import ANYONE
from service.dependencies import Runtime
from service.errors.exceptions import InvalidRequest, Overloaded
from service.errors.problem_details import describe, response, status_of, traceback_of
from service.middleware.request_log import RequestLog, request_id
from service.models.soundness.readiness import unready
from service.protocol import metadata
from service.protocol.inference import Inferred, RefusedImage, answered, loaded_version, number_of
from service.protocol.repository import described, listed, ready
from service.protocol.requests import Infer
from service.protocol.rpc.messages import SERVICE, message_class
from service.protocol.rpc.tensors import encoded, read
from telemetry import logs
from vault.keys import Scope

log = logging.getLogger("engram.service")

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""The status of gRPC for each of HTTP that is refused with; INTERNAL for any other."""

Work = Callable[[Request], Awaitable[Any]]


@dataclass
class _Exchange:
    """What the log says of the bodies of a call."""

    received: int = 0
    sent: int = 0


@dataclass(frozen=True)
class _Route:
    path: str


class Calls:
    """All calls of the service, within the limits that requests by HTTP have, too."""

    def __init__(self, parts: Runtime) -> None:
        self._parts = parts
        self._log = RequestLog(parts.metrics)

    async def server_live(self, message: Any, context: Any) -> Any:
        """Whether this process answers at all."""
        return message_class("ServerLiveResponse")(live=True)

    async def server_ready(self, message: Any, context: Any) -> Any:
        """Whether a model can answer."""
        found = unready(self._parts.live, self._parts.draining) is None
        return message_class("ServerReadyResponse")(ready=found)

    async def server_metadata(self, message: Any, context: Any) -> Any:
        """What this server is."""
        return ParseDict(metadata.server(), message_class("ServerMetadataResponse")())

    async def model_ready(self, message: Any, context: Any) -> Any:
        """Whether a version is loaded, warmed up and can answer."""

        async def work(request: Request) -> Any:
            found = await ready(self._parts, message.name, number_of(message.version))
            return message_class("ModelReadyResponse")(ready=found)

        return await self._answer("ModelReady", context, work)

    async def model_metadata(self, message: Any, context: Any) -> Any:
        """Inputs, outputs and versions of a model; what its classes are called is in its configuration."""

        async def work(request: Request) -> Any:
            found = metadata.model(*await described(self._parts, message.name, number_of(message.version)))
            return ParseDict(found, message_class("ModelMetadataResponse")(), ignore_unknown_fields=True)

        return await self._answer("ModelMetadata", context, work)

    async def model_config(self, message: Any, context: Any) -> Any:
        """The metadata as Triton's clients read them."""

        async def work(request: Request) -> Any:
            loaded, _, classes = await described(self._parts, message.name, number_of(message.version))
            return ParseDict({"config": metadata.config(loaded, classes)}, message_class("ModelConfigResponse")())

        return await self._answer("ModelConfig", context, work)

    async def model_statistics(self, message: Any, context: Any) -> Any:
        """What was asked of a version, or of all models that answer."""

        async def work(request: Request) -> Any:
            if message.name:
                versions = [await loaded_version(self._parts, message.name, number_of(message.version))]
            else:
                versions = self._parts.live.models()
            found = {"model_stats": [metadata.statistics(one, self._parts.statistics) for one in versions]}
            return ParseDict(found, message_class("ModelStatisticsResponse")(), ignore_unknown_fields=True)

        return await self._answer("ModelStatistics", context, work)

    async def repository_index(self, message: Any, context: Any) -> Any:
        """All models, or those that can answer."""

        async def work(request: Request) -> Any:
            found = {"models": listed(self._parts, only_ready=message.ready)}
            return ParseDict(found, message_class("RepositoryIndexResponse")())

        return await self._answer("RepositoryIndex", context, work)

    async def model_infer(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Answer for one image or several.

        The message is not received before the call is let in, which is why it comes as a stream of one.
        """
        exchange, taken = _Exchange(), 0

        async def work(request: Request) -> bytes:
            nonlocal taken
            data = await anext(aiter(messages), b"")
            self._parts.limits.bodies.memory.take(len(data))
            taken = exchange.received = len(data)
            try:
                message = message_class("ModelInferRequest").FromString(data)
            except DecodeError as error:
                raise InvalidRequest("The message is no ModelInferRequest.") from error
            reader = partial(self._read, message)
            found = await answered(self._parts, request, message.model_name, number_of(message.model_version), reader)
            sent: bytes = _serialised(found)
            exchange.sent = len(sent)
            return sent

        try:
            answer: bytes = await self._answer("ModelInfer", context, work, exchange)
            return answer
        finally:
            self._parts.limits.bodies.memory.give(taken)

    async def _read(self, message: Any, shape: InputShape) -> Infer:
        return read(message, self._parts.settings.max_images_per_request, shape)

    async def _answer(
        self,
        name: str,
        context: Any,
        work: Work,
        exchange: _Exchange | None = None,
        scope: Scope | Literal["anyone"] = "predict",
    ) -> Any:
        """What `work` gives, or an error as gRPC has it, with its code among the metadata behind it."""
        request = _request(context, name)
        identity = request_id(request.scope["headers"])
        logs.begin(request_id=identity)
        began, status = time.perf_counter(), 500
        try:
            with self._parts.limits.requests.held():
                if scope != ANYONE:
                    await self._parts.access.admit(request, scope)
                answer = await work(request)
            status = 200
            return answer
        except asyncio.CancelledError:
            status = 499
            raise
        except Exception as error:
            told, headers = _told(error)
            status = told["status"]
            behind = (("code", told["code"]), ("request-id", identity), *headers.items())
            await context.abort(_CODES.get(status, grpc.StatusCode.INTERNAL), told["detail"], behind)
        finally:
            self._log.write(request.scope, exchange or _Exchange(), status, time.perf_counter() - began)


def _told(error: Exception) -> tuple[dict[str, Any], dict[str, str]]:
    """The problem document of an error, and when to come back; what is not foreseen is logged."""
    image = f"Image {error.number}: " if isinstance(error, RefusedImage) else ""
    cause = error.cause if isinstance(error, RefusedImage) else error
    told = describe(cause)
    if told["status"] >= 500 and not isinstance(cause, Overloaded):
        foreseen = status_of(cause) is not None
        log.error("%s: %s", told["code"], cause, exc_info=traceback_of(cause) if foreseen else cause)
    retry = response(cause).headers.get("Retry-After")
    return told | {"detail": image + told["detail"]}, {} if retry is None else {"retry-after": retry}


def _request(context: Any, name: str) -> Request:
    """A call as access control and quotas see requests; no web page can make one, so it is meant for this host."""
    headers = [
        (key.encode("latin-1"), value.encode("latin-1", "replace"))
        for key, value in context.invocation_metadata() or ()
        if isinstance(value, str) and key != "host"
    ]
    path = f"/{SERVICE}/{name}"
    return Request(
        {
            "type": "http",
            "method": "POST",
            "path": path,
            "route": _Route(path),
            "query_string": b"",
            "headers": [*headers, (b"host", b"localhost")],
            "state": {},
        }
    )


def _serialised(inferred: Inferred) -> bytes:
    found: bytes = encoded(inferred).SerializeToString()
    return found
