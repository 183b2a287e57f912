"""HTTP server of one service process, and the socket that it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from service.dependencies import Runtime
from service.lifecycle.signals import stop_if_asked
from service.server.connection import ConnectionLimits, bounded
from service.settings import ServiceSettings

if TYPE_CHECKING:
    from service.protocol.rpc.server import RpcServer

log = logging.getLogger("engram.service")

_DESCRIPTORS = 65536
"""Files and connections that this process wants to have open at most."""


class Server(uvicorn.Server):
    """uvicorn with bounded connections and callbacks for when it begins to listen and to stop.

    Parameters
    ----------
    app
        What `create_app` made.
    on_listening, on_stopping
        Called once each, inside the event loop; neither may block.
    """

    def __init__(
        self,
        app: FastAPI,
        on_listening: Callable[[], None] | None = None,
        on_stopping: Callable[[], None] | None = None,
    ) -> None:
        self._app = app
        settings: ServiceSettings = app.state.settings
        raise_descriptors()
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(ConnectionLimits(settings, lambda: self._runtime.draining.begun, self._refused)),
                ws="none",
                log_level="warning",
                # Its lines go the way of all others, and requests have a line of ours.
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # `service.middleware.forwarding` has them
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.grace_seconds,
            )
        )
        self._on_listening = on_listening
        self._on_stopping = on_stopping
        self.rpc: RpcServer | None = None
        """The server of gRPC, where the settings ask for one."""

    @property
    def _runtime(self) -> Runtime:
        runtime: Runtime = self._app.state.runtime
        return runtime

    def _refused(self) -> None:
        self._runtime.metrics.refused.labels("connections").inc()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Signals have come to uvicorn for a moment now; those before may have been swallowed by what was imported.
        stop_if_asked()
        await super().startup(sockets)
        port = self._runtime.settings.grpc_port if self.started else None
        if port is not None and sockets:
            await self._start_rpc(sockets[0].getsockname()[0], port)
        if self.started and self._on_listening is not None:
            self._on_listening()

    async def _start_rpc(self, host: str, port: int) -> None:
        """Listen for gRPC as well; where that cannot be, this server does not start, either."""
        # What it imports is an extra of the package.
        from service.protocol.rpc.server import PortTaken, RpcServer

        rpc = RpcServer(self._runtime, host)
        try:
            await rpc.start(port)
        except PortTaken as error:
            log.error("%s", error)
            self.started, self.should_exit = False, True
            await super().shutdown(None)
            return
        self.rpc = rpc
        log.info("gRPC is listened for on %s", rpc.address)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._on_stopping is not None:
            self._on_stopping()
        self._runtime.draining.begun = True
        self._runtime.streams.end()
        if self.rpc is not None:
            # Beside the others, which have as long.
            ending = asyncio.create_task(self.rpc.stop(self._runtime.settings.grace_seconds))
            await super().shutdown(sockets)
            await ending
            return
        await super().shutdown(sockets)


def raise_descriptors() -> None:
    """Let this process open as many files as it may: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(host: str, port: int, unread_seconds: float = 60.0, *, shared: bool = False) -> socket.socket:
    """A listening socket; port 0 takes a free one. With `shared`, other processes of this user may listen there too.

    What a client does not acknowledge for `unread_seconds` ends its connection, also where the answer is out of this
    process's hands.

    Raises
    ------
    OSError
        The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=2048, reuse_port=shared)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread_seconds * 1000))
    return listening


def listen_for(settings: ServiceSettings, host: str, port: int) -> socket.socket:
    """The listening socket of a service's first process; raises OSError."""
    if (settings.processes or 1) == 1:
        return listen(host, port)
    if port:
        listen(host, port).close()  # where others may listen too, nobody would say that somebody does already
    return listen(host, port, shared=True)


def url(listening: socket.socket) -> str:
    """Where clients on this machine reach the socket."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
