"""Service replicas and a worker as separate processes, over one store and one Redis."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from service.lifecycle.processes import stop
from service.lifecycle.tuning import TUNING
from testing.data.digits import QUICK, SMALL_MODEL, archive
from testing.processes.forked import fork
from testing.processes.processes import eventually, plain_environment
from testing.servers.redis import RedisServer
from testing.servers.silent_proxy import SilentProxy


class Stack:
    """Handle of the running processes."""

    def __init__(
        self,
        store: Path,
        redis: RedisServer,
        replicas: list[str],
        client: httpx.Client,
        services: list[subprocess.Popen[bytes]],
        worker: subprocess.Popen[bytes],
    ) -> None:
        self.store = store
        self.temporary = store.parent / "tmp"
        """Where the processes have their temporary files."""
        self.redis = redis
        self.redis_url = redis.url
        self.replicas = replicas
        """The address of each service."""
        self.services = services
        self.worker = worker
        self.client = client
        """HTTP client of the first service."""

    def create(self, model: str, **changes: Any) -> None:
        """Create a small model."""
        self.client.post("/v1/models", json=self.small(model, **changes)).raise_for_status()

    def small(self, model: str, **changes: Any) -> dict[str, Any]:
        """The definition of a small model."""
        return {"name": model, **SMALL_MODEL, **changes}

    def submit(self, model: str, task: str, data: bytes, options: dict[str, Any] | None = None) -> httpx.Response:
        """Upload a task."""
        form = {"name": task, "options": json.dumps(QUICK | (options or {}))}
        return self.client.post(f"/v1/models/{model}/tasks", data=form, files={"data": ("data.zip", data)})

    def finish(self, response: httpx.Response, seconds: float = 300) -> dict[str, Any]:
        """The job of an upload, once it is over and its entry among the open jobs is removed."""
        assert response.status_code == 202, response.text
        deadline = time.monotonic() + seconds
        while True:
            job: dict[str, Any] = self.client.get(response.headers["Location"]).json()
            if job["state"] in ("succeeded", "failed", "cancelled"):
                entry = self.store / "open" / job["model"] / job["id"]
                assert eventually(partial(_gone, entry), 60), f"{entry} is not removed"
                return job
            assert time.monotonic() < deadline, f"the job takes too long: {job}"
            time.sleep(0.05)

    def learn(self, model: str, task: str, digits: tuple[int, ...], **options: Any) -> dict[str, Any]:
        """Learn a task of digits and wait until every replica serves it; returns the job's result."""
        job = self.finish(self.submit(model, task, archive(digits), options))
        assert job["state"] == "succeeded", job
        result: dict[str, Any] = job["result"]

        def served() -> bool:
            asked = [httpx.get(f"{replica}/v1/models/{model}", timeout=60) for replica in self.replicas]
            return all(answer.raise_for_status().json()["version"] >= result["version"] for answer in asked)

        assert eventually(served, 60), f"version {result['version']} of {model} is not served"
        return result

    def objects(self) -> set[str]:
        """Every file in the store, except the mark of the worker's periodic sweep."""
        files = (os.path.join(folder, name) for folder, _, names in os.walk(self.store) for name in names)
        return {os.path.relpath(file, self.store) for file in files} - {"sweeps/last.json"}


def _gone(path: Path) -> bool:
    return not path.exists()


@contextmanager
def silenceable(folder: Path, *, unix: bool = False, **settings: str) -> Iterator[tuple[Stack, SilentProxy]]:
    """As `started` with one replica, with a proxy before Redis that can fall silent."""
    redis = RedisServer()
    proxy = SilentProxy(redis.socket, unix=unix)
    try:
        with started(folder, 1, ENGRAM_REDIS_URL=proxy.url, **settings) as stack:
            yield stack, proxy
    finally:
        proxy.close()
        redis.remove()


@contextmanager
def started(folder: Path, replicas: int = 2, **settings: str) -> Iterator[Stack]:
    """The running stack, until the block ends; `settings` are further environment variables."""
    with ExitStack() as parts:
        redis = RedisServer()
        parts.callback(redis.remove)
        store = folder / "store"
        environment = plain_environment() | {
            "ENGRAM_STORE_URL": str(store),
            "ENGRAM_REDIS_URL": redis.url,
            "ENGRAM_RECONCILE_SECONDS": "1",
            "ENGRAM_DRAIN_SECONDS": "0",
            # With which the program does not begin anew.
            **TUNING,
            "TMPDIR": str(folder / "tmp"),
            **settings,
        }
        (folder / "tmp").mkdir()
        log = parts.enter_context((folder / "worker.log").open("wb"))
        worker = fork("worker", [], environment, niceness=5, stderr=log.fileno())
        parts.callback(stop, worker, 60)
        words, services = ["service", "--port", "0"], []
        for number in range(replicas):
            log = parts.enter_context((folder / f"service-{number}.log").open("wb"))
            services.append(fork("service", words, environment, stdout=subprocess.PIPE, stderr=log.fileno()))
        addresses = []
        for service in services:
            assert service.stdout is not None, "its output was asked for"
            parts.callback(service.stdout.close)
            parts.callback(stop, service, 60)
            addresses.append(service.stdout.readline().decode().split()[-1])
        client = parts.enter_context(httpx.Client(base_url=addresses[0], timeout=60))
        yield Stack(store, redis, addresses, client, services, worker)
