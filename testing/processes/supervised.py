"""Redis, workers and one service that tests kill, freeze and restart like a supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from service.lifecycle.tuning import TUNING
from testing.processes.forked import fork
from testing.processes.processes import eventually, plain_environment, reserved_port
from testing.servers.redis import RedisServer
from vault.settings import VaultSettings
from vault.vault import Vault


class Supervised:
    """The processes, all over one store.

    They end with the thread that started them, so use it from one thread that outlives them.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.redis = RedisServer()
        self._reserved = ExitStack()
        self._port = self._reserved.enter_context(reserved_port())
        self.url = f"http://127.0.0.1:{self._port}"
        self._environment = plain_environment() | {
            "ENGRAM_STORE_URL": str(folder / "store"),
            "ENGRAM_REDIS_URL": self.redis.url,
            "ENGRAM_LEASE_SECONDS": "1.5",
            "ENGRAM_RECONCILE_SECONDS": "0.3",
            "ENGRAM_DRAIN_SECONDS": "0",
            "ENGRAM_LOG_LEVEL": "WARNING",
            # With which the program does not begin anew.
            **TUNING,
            **settings,
        }
        self.workers: list[subprocess.Popen[bytes]] = []
        self.service: subprocess.Popen[bytes] | None = None

    @property
    def vault_settings(self) -> VaultSettings:
        """Settings of a vault over the same store and Redis."""
        return VaultSettings(store_url=str(self.folder / "store"), redis_url=self.redis.url, lease_seconds=1.5)

    @property
    def log(self) -> str:
        """The log of all processes so far."""
        return (self.folder / "log").read_text()

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        worker = self._start("worker")
        self.workers.append(worker)
        return worker

    def start_service(self) -> None:
        """Start the service, always on the same port."""
        self.service = self._start("service", "service", "--port", str(self._port))

    def kill_worker(self, pid: int | None = None) -> None:
        """Kill the worker of this process id, else the oldest one, and start another."""
        victim = next((worker for worker in self.workers if worker.pid == pid), self.workers[0])
        self.workers.remove(victim)
        _kill(victim)
        self.start_worker()

    def kill_service(self) -> None:
        """Kill the service and start another."""
        assert self.service is not None, "it was started"
        _kill(self.service)
        self.start_service()

    def kill_redis(self) -> None:
        """Kill Redis and start an empty one."""
        self.redis.stop()
        self.redis.start()

    def ready(self) -> bool:
        """Whether the service answers."""
        try:
            return httpx.get(f"{self.url}/readyz", params={"allow_empty": "true"}).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Kill all processes."""
        for process in (*self.workers, self.service):
            if process is not None:
                _kill(process)
        self.redis.remove()
        self._reserved.close()

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return fork(program, words, self._environment, stderr=log.fileno(), stdout=log.fileno())


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


@contextmanager
def supervised(folder: Path, workers: int = 1, **settings: str) -> Iterator[tuple[Supervised, Vault]]:
    """The processes, once the service answers, and a vault over their store; until the block ends."""
    parts = Supervised(folder, **settings)
    try:
        for _ in range(workers):
            parts.start_worker()
        parts.start_service()
        assert eventually(parts.ready, 180), parts.log
        with Vault.connect(parts.vault_settings) as vault:
            yield parts, vault
    finally:
        parts.stop()


@contextmanager
def frozen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Inside, the process is stopped (SIGSTOP)."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
