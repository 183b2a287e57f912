"""Service and worker behind a proxy with a path prefix, which a test may let die and come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.settings import ServiceSettings
from testing.processes.learning_service import working
from testing.servers.redis import RedisServer
from testing.servers.reverse_proxy import proxied
from testing.servers.service import Service, running
from vault.keys import Scope
from vault.settings import VaultSettings
from vault.vault import Vault

PREFIX = "/a/b"


class Stand:
    """What stands there: the address of the page, the store, and the service that may go."""

    def __init__(self, settings: ServiceSettings, vault: Vault) -> None:
        self._settings = settings
        self._running = ExitStack()
        self._port = 0
        self.vault = vault
        self.address = ""
        """Of the page, by way of the proxy."""
        self.service = self.begin()

    def begin(self) -> Service:
        """Start the service; a second time on the port of the first."""
        self.service = self._running.enter_context(running(self._settings, self._port))
        self._port = int(self.service.url.rsplit(":", 1)[1].strip("/"))
        return self.service

    def end(self) -> None:
        """Let the service go; the worker, Redis and the proxy stay."""
        self._running.close()

    def key(self, name: str, scope: Scope) -> str:
        """A new key."""
        return self.vault.keys.create(name, scope)[1]


@contextmanager
def standing(folder: Path, **settings: object) -> Iterator[Stand]:
    """All of it over an empty store, until the block ends."""
    redis = RedisServer()
    with ExitStack() as parts:
        parts.callback(redis.remove)
        stored = VaultSettings(store_url=str(folder / "store"), redis_url=redis.url)
        vault = parts.enter_context(Vault.connect(stored))
        stand = Stand(ServiceSettings(**{**stored.model_dump(), "drain_seconds": 0, **settings}), vault)
        parts.callback(stand.end)
        parts.enter_context(working(vault))
        proxy = parts.enter_context(proxied(stand.service.url, PREFIX, strips=True))
        stand.address = f"{proxy}{PREFIX}/ui/"
        yield stand
