"""HTTP server of one service process, and the socket that it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from fastapi import FastAPI

from service.dependencies import Runtime
from service.lifecycle.signals import stop_if_asked
from service.server.acceptor import Acceptor
from service.server.connection import Connection, ConnectionLimits, bounded
from service.server.dispatcher import Dispatcher
from service.server.receiver import GuardedConnection, Receiver
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
    folder
        Where the processes that serve one address meet; None where there is one alone.
    receiver, host
        What this process, which does not listen, is given its connections by; where it has gRPC of its own.
    """

    def __init__(
        self,
        app: FastAPI,
        on_listening: Callable[[], None] | None = None,
        on_stopping: Callable[[], None] | None = None,
        *,
        folder: Path | None = None,
        receiver: Receiver | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._app = app
        self._folder = folder
        self._host = host
        self._receiver = receiver
        self._dispatcher: Dispatcher | None = None
        self._acceptors: list[Acceptor] = []
        self._taking: set[asyncio.Task[None]] = set()
        settings: ServiceSettings = app.state.settings
        raise_descriptors()
        limits = ConnectionLimits(settings, lambda: self._runtime.draining.begun, self._refused)
        self._protocol = bounded(limits)
        super().__init__(
            uvicorn.Config(
                app,
                http=self._protocol,
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
        await super().startup([])  # connections are accepted by ourselves, below
        port = self._runtime.settings.grpc_port if self.started else None
        if port is not None and sockets is not None:
            await self._start_rpc(sockets[0].getsockname()[0] if sockets else self._host, port)
        if self.started:
            self._accept(sockets or [])
        if self.started and self._on_listening is not None:
            self._on_listening()

    def _accept(self, sockets: list[socket.socket]) -> None:
        """Accept, for other processes as well, or be given what another process accepts."""
        if self._receiver is not None:
            self._receiver.start(self._take, self._shed)
        elif self._folder is not None:
            (listening,) = sockets
            metrics, retry = self._runtime.metrics, self._runtime.settings.retry_after_seconds
            self._dispatcher = Dispatcher(listening, self._folder, self._take, self._shed, self._own, metrics, retry)
            self._dispatcher.start()
        else:
            assert sockets, "a server that is given no connections has to listen"
            self._acceptors = [Acceptor(listening, self._take) for listening in sockets]
            for acceptor in self._acceptors:
                acceptor.start()

    def _shed(self, count: int) -> None:
        """Close some connections with their next answers: their clients come again, and are given to others."""
        staying = (one for one in self.server_state.connections if isinstance(one, Connection) and not one.shed)
        for connection in list(itertools.islice(staying, count)):
            connection.shed = True

    def _own(self) -> int:
        """How many connections this process serves, or is about to."""
        return len(self.server_state.connections) + len(self._taking)

    def _take(self, connection: socket.socket, guarded: GuardedConnection | None = None) -> None:
        """Serve a connection that was accepted."""
        task = asyncio.get_running_loop().create_task(self._serve_accepted(connection, guarded))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _serve_accepted(self, connection: socket.socket, guarded: GuardedConnection | None) -> None:
        def protocol() -> Connection:
            state = self.lifespan.state
            found = self._protocol(config=self.config, server_state=self.server_state, app_state=state)
            found.guarded = guarded
            return found

        try:
            connection.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(protocol, connection)
        except OSError as error:
            log.warning("a connection ended before it was served: %s", error)
            connection.close()
            if guarded is not None:
                guarded.end()

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
        if self._dispatcher is not None:
            self._dispatcher.stop_accepting()
        for acceptor in self._acceptors:
            acceptor.stop()
        self._runtime.draining.begun = True
        self._runtime.streams.end()
        if self._taking:  # so that those, too, are told to end
            await asyncio.wait(self._taking)
        if self.rpc is not None:
            # Beside the others, which have as long.
            ending = asyncio.create_task(self.rpc.stop(self._runtime.settings.grace_seconds))
            await super().shutdown(sockets)
            await ending
        else:
            await super().shutdown(sockets)
        for shared in (self._dispatcher, self._receiver):
            if shared is not None:
                shared.close()


def raise_descriptors() -> None:
    """Let this process open as many files as it may: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def listen(host: str, port: int, unread_seconds: float = 60.0) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    What a client does not acknowledge for `unread_seconds` ends its connection, also where the answer is out of this
    process's hands.

    Raises
    ------
    OSError
        The address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=2048)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread_seconds * 1000))
    return listening


def url(listening: socket.socket) -> str:
    """Where clients on this machine reach the socket."""
    host, port = listening.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"
