"""Service with a worker in threads of this process, over a store and a Redis of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from service.settings import ServiceSettings
from testing.data.models import TASKS, create, learn, worker_settings
from testing.servers.redis import RedisServer
from testing.servers.service import PATIENCE, Service, running
from vault.errors import VaultError
from vault.settings import VaultSettings
from vault.vault import Vault
from worker.job_runner import JobRunner

_LOOK_SECONDS = 0.05


@contextmanager
def learning_service(folder: Path) -> Iterator[Service]:
    """A service with the model `digits` and its two tasks, whose jobs are worked on while the block runs."""
    server = RedisServer()
    try:
        settings = VaultSettings(store_url=str(folder), redis_url=server.url)
        with Vault.connect(settings) as vault:
            create(vault)
            for task, digits in TASKS.items():
                learn(vault, task, digits)
            with running(ServiceSettings(**settings.model_dump(), drain_seconds=0)) as service, working(vault):
                yield service
    finally:
        server.remove()


@contextmanager
def working(vault: Vault) -> Iterator[None]:
    """A block in which every job is worked on."""
    runner = JobRunner(vault, worker_settings(vault))

    def work() -> None:
        while not runner.stopping.wait(_LOOK_SECONDS):
            with suppress(VaultError):  # tests take the store away for a moment
                for model in vault.models.list(None, 100):
                    runner.work(model.name)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        runner.stopping.set()
        thread.join(PATIENCE)
        assert not thread.is_alive(), "the worker did not stop"
