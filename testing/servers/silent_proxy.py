"""Proxy of a Redis server whose connections fall silent without being closed."""

from __future__ import annotations

import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path


class _Link:
    """One client's connection through the proxy."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.dead = False
        """Whether nothing of it is passed on any more, not even its end."""


class SilentProxy:
    """Proxy of a server's Unix socket, on a TCP port of its own or on another Unix socket.

    While it is silent nothing is passed on and nothing is closed: what clients send is taken by the system's buffers,
    new connections are opened by the system, and nobody answers.

    Parameters
    ----------
    server
        Path of the server's socket.
    unix
        Whether clients come by a Unix socket instead of TCP.
    """

    def __init__(self, server: str, *, unix: bool = False) -> None:
        self._server = server
        self._lock = threading.Condition()
        self._silent = False
        self._over = False
        self._links: list[_Link] = []
        self.mute = b""
        """Connections by which this is sent fall silent for ever; none when it is empty."""
        self.accepted = 0
        """Connections that were ever opened."""
        self._folder = tempfile.TemporaryDirectory(prefix="engram-proxy-") if unix else None
        if self._folder is not None:
            path = Path(self._folder.name) / "redis.sock"
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(str(path))
            self._listening.listen(128)
            self.url = f"unix://{path}"
        else:
            self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
            self.url = f"redis://127.0.0.1:{self._listening.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        """Pass nothing on from now on."""
        with self._lock:
            self._silent = True

    def speak(self, *, old: bool = True) -> None:
        """Pass on again what comes; the connections that there are stay silent for ever unless `old`."""
        with self._lock:
            if not old:
                for link in self._links:
                    link.dead = True
            self._silent = False
            self._lock.notify_all()

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._over = True
            self._lock.notify_all()
        # Closing alone would leave the thread waiting in accept().
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for link in self._links:
            for end in (link.client, link.server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                continue
            link = _Link(client, server)
            with self._lock:
                self._links.append(link)
                self.accepted += 1
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pass_on, args=(link, source, sink), daemon=True).start()

    def _pass_on(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.mute and self.mute in data and source is link.client:
                    link.dead = True
                if not self._may_pass(link):
                    return
                sink.sendall(data)
        if not self._may_pass(link):
            return
        with self._lock, suppress(ValueError):
            self._links.remove(link)
        for end in (link.client, link.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _may_pass(self, link: _Link) -> bool:
        """Wait while the proxy is silent; whether the link may pass anything on then."""
        with self._lock:
            self._lock.wait_for(lambda: link.dead or self._over or not self._silent)
            return not link.dead and not self._over
