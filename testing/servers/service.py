"""Service on a free port, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from service.app import create_app
from service.dependencies import Runtime
from service.server.server import Server, listen, url
from service.settings import ServiceSettings

PATIENCE = 100.0
"""Timeout in seconds for events whose speed does not matter, since the machine may be busy."""


class Service:
    """A running service with an HTTP client."""

    def __init__(self, client: httpx.Client, runtime: Runtime, server: Server) -> None:
        self.server = server
        self.client = client
        self.runtime = runtime
        self.vault = runtime.vault
        self.url = str(client.base_url)


@contextmanager
def running(settings: ServiceSettings, port: int = 0) -> Iterator[Service]:
    """A service, which runs until the block ends; on a free port unless one is given."""
    app = create_app(settings)
    server = Server(app)
    with listen("127.0.0.1", port) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the service did not start"
                time.sleep(0.01)
            with httpx.Client(base_url=url(listening), timeout=PATIENCE) as client:
                yield Service(client, app.state.runtime, server)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive(), "the service did not stop"


def wait_until(true: object, seconds: float = PATIENCE) -> float:
    """Wait until `true()` is true; returns the seconds it took."""
    assert callable(true), "a condition to evaluate repeatedly"
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it did not come true in time"
        time.sleep(0.02)
    return time.monotonic() - began
