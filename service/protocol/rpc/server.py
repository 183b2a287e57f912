"""Server of gRPC in a service process, in the event loop and on the queues of its HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.dependencies import Runtime
from service.models.soundness.readiness import unready
from service.protocol.rpc.calls import Calls
from service.protocol.rpc.messages import METHODS, POOL, SERVICE, message_class
from service.settings import ServiceSettings

_LOOK_SECONDS = 0.25
"""Between two looks at readiness for the health service."""
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class PortTaken(Exception):
    """An address that cannot be listened on; the text is one sentence for the person who tried."""


class RpcServer:
    """Server of `inference.GRPCInferenceService`, with health checking and reflection.

    Parameters
    ----------
    address
        Host that the HTTP server listens on.
    """

    def __init__(self, parts: Runtime, address: str) -> None:
        self._parts = parts
        self._host = f"[{address}]" if ":" in address else address
        self._calls = Calls(parts)
        self._health = health.HealthServicer()
        self._server: Any = None
        self._watching: asyncio.Task[None] | None = None
        self.address = ""
        """Where it listens, once it does."""

    async def start(self, port: int) -> None:
        """Listen on a port, 0 for a free one; raises PortTaken."""
        settings = self._parts.settings
        self._server = grpc.aio.server(options=_options(settings))
        self._server.add_generic_rpc_handlers((self._handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, _HEALTH, reflection.SERVICE_NAME), self._server, pool=_described()
        )
        try:
            taken = self._server.add_insecure_port(f"{self._host}:{port}")
        except RuntimeError as error:
            raise PortTaken(f"gRPC cannot listen on {self._host}:{port}.") from error
        self.address = f"{self._host}:{taken}"
        await self._server.start()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self, grace: float) -> None:
        """Refuse new calls at once; those under way have so many seconds."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)

    async def _watch(self) -> None:
        """Tell the health service what `/readyz` says."""
        serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
        told = None
        while True:
            now = serving if unready(self._parts.live, self._parts.draining) is None else not_serving
            if now != told:
                for name in ("", SERVICE):
                    await self._health.set(name, now)
                told = now
            await asyncio.sleep(_LOOK_SECONDS)

    def _handlers(self) -> Any:
        calls: dict[str, Callable[..., Any]] = {
            "ServerLive": self._calls.server_live,
            "ServerReady": self._calls.server_ready,
            "ServerMetadata": self._calls.server_metadata,
            "ModelReady": self._calls.model_ready,
            "ModelMetadata": self._calls.model_metadata,
            "ModelConfig": self._calls.model_config,
            "ModelStatistics": self._calls.model_statistics,
            "RepositoryIndex": self._calls.repository_index,
        }
        found = {
            name: grpc.unary_unary_rpc_method_handler(
                call, message_class(f"{name}Request").FromString, message_class(f"{name}Response").SerializeToString
            )
            for name, call in calls.items()
        }
        found["ModelInfer"] = grpc.stream_unary_rpc_method_handler(self._calls.model_infer)
        assert set(found) == set(METHODS), "every call that is described is answered"
        return grpc.method_handlers_generic_handler(SERVICE, found)


def _options(settings: ServiceSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.max_concurrent_streams", settings.max_requests),
        # Else a second process would share the port, and have a part of the calls.
        ("grpc.so_reuseport", 0),
    ]


def _described() -> Any:
    """The pool of the service's messages, with those that health checking and reflection are described by."""
    for described in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        with contextlib.suppress(TypeError):  # it is there already
            POOL.AddSerializedFile(described.serialized_pb)
    return POOL
