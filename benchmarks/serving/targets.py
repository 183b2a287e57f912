"""Servers that are measured: Engram and its peers, each with its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx

from benchmarks.growth.store import MODEL, ROOT
from benchmarks.serving.client import Bodies
from benchmarks.serving.networks import ServedNetwork
from benchmarks.serving.stores import ServedStore
from service.lifecycle.processes import spawn, stop
from service.lifecycle.tuning import TUNING
from testing.processes.processes import eventually, plain_environment, reserved_port
from testing.servers.redis import RedisServer

LOADING_SECONDS = 300.0
MODEL_PATH = f"/v1/models/{MODEL}"


class NotStarted(Exception):
    """A server that ended or said nothing; the message is shown to the user."""


@dataclass(frozen=True)
class Target:
    """A running server."""

    name: str
    address: str
    path: str
    roots: tuple[int, ...]
    """Its processes, besides their descendants."""
    bodies: Bodies | None = None
    """What it is asked with, where that differs from what others are asked with."""
    pausable: bool = False
    """Whether it may be stopped while others are measured; each of its processes leads a group."""

    def pause(self) -> None:
        """Stop its processes where they are, so that they take nothing from others."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let its processes go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.pausable:
            for root in self.roots:
                os.killpg(root, number)


@dataclass(frozen=True)
class PeerKind:
    """A way to serve that is compared."""

    description: str
    module: str
    words: tuple[str, ...] = ()
    """Of its command, after the plan."""
    workers: int = 1
    threads: int = 1
    """Of PyTorch, in each worker."""
    needs: str | None = None
    """Package without which it is left out."""
    ready: str = "/docs"
    """Path that answers once it serves."""
    compared: bool = True
    """Whether it answers what is asked, so that it may be the best."""

    @property
    def installed(self) -> bool:
        return self.needs is None or find_spec(self.needs) is not None


_PEERS = "benchmarks.serving.peers"
_LITSERVE, _FASTAPI = f"{_PEERS}.litserve_server", f"{_PEERS}.fastapi_server"

PEERS: Mapping[str, PeerKind] = {
    "litserve-1": PeerKind("LitServe, 1 worker", _LITSERVE, ("zeromq",), needs="litserve", ready="/health"),
    "litserve-2": PeerKind("LitServe, 2 workers", _LITSERVE, ("zeromq",), 2, needs="litserve", ready="/health"),
    "fastapi": PeerKind("FastAPI, the network called in the handler", _FASTAPI, ("async",)),
    "fastapi-threads": PeerKind("FastAPI, the handler in its threads", _FASTAPI, ("threads",)),
    "litserve-queues": PeerKind("LitServe, 1 worker, without ZeroMQ", _LITSERVE, needs="litserve", ready="/health"),
    "litserve-1x2": PeerKind(
        "LitServe, 1 worker, 2 threads", _LITSERVE, ("zeromq",), threads=2, needs="litserve", ready="/health"
    ),
    "fastapi-x2": PeerKind("FastAPI, 2 threads", _FASTAPI, ("async",), threads=2),
    "empty": PeerKind("FastAPI, empty handler", f"{_PEERS}.empty_server", compared=False),
}
"""By name."""

USUAL = ("litserve-1", "litserve-2", "fastapi", "empty")
"""The peers of every network."""
FOR_LARGE = ("litserve-1x2",)
"""Beside them where one image takes long enough for two threads."""


def environment(threads: int, **settings: str) -> dict[str, str]:
    """Of a server with so many threads of PyTorch."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return plain_environment() | {**TUNING, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path, **settings}


class StartingServer:
    """A server that was started and may not answer yet.

    Parameters
    ----------
    answers
        Whether it serves what is asked for.
    """

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], log: Path, answers: Callable[[], bool], target: Target
    ) -> None:
        self._name = name
        self._process = process
        self._log = log
        self._answers = answers
        self._target = target

    def wait(self) -> Target:
        """The server, once it answers; raises NotStarted."""
        found = eventually(lambda: self._process.poll() is not None or self._answers(), LOADING_SECONDS)
        if self._process.poll() is not None or not found:
            how = "does not answer" if self._process.poll() is None else "ended"
            raise NotStarted(f"{self._name} {how}: {self._log.read_text(errors='replace')[-2000:]}")
        return self._target


@contextmanager
def engram(
    stored: ServedStore, redis: RedisServer, folder: Path, threads: int = 1, processes: int = 1, device: str = "cpu"
) -> Iterator[StartingServer]:
    """A replica of the service, of so many processes, with a Redis of its own, as a cluster has it.

    The store is the kept one itself, which a service does not change.
    """
    with ExitStack() as parts:
        port = parts.enter_context(reserved_port())
        settings = {"ENGRAM_STORE_URL": str(stored.store), "ENGRAM_REDIS_URL": redis.url, "TMPDIR": str(folder)}
        settings |= {"ENGRAM_TORCH_THREADS": str(threads), "ENGRAM_DRAIN_SECONDS": "0", "ENGRAM_SERVE_DEVICE": device}
        path = folder / "engram.log"
        log = parts.enter_context(path.open("wb"))
        command = [sys.executable, "-P", "-m", "service", "service", "--port", str(port)]
        command += ["--processes", str(processes)]
        process = spawn(command, environment(threads, **settings), stdout=log.fileno(), stderr=log.fileno())
        parts.callback(stop, process, 60)
        target = Target("engram", f"http://127.0.0.1:{port}", f"{MODEL_PATH}/predict", (process.pid, redis.pid))

        def served() -> bool:
            account, answer = (_get(target.address + path) for path in ("/metrics", MODEL_PATH))
            if account is None or f"engram_service_processes {processes:.1f}" not in account.text.splitlines():
                return False
            return answer is not None and answer.status_code == 200 and answer.json()["version"] == stored.tasks

        yield StartingServer("engram", process, path, served, target)


@contextmanager
def peer(name: str, network: ServedNetwork, labels: tuple[str, ...], folder: Path) -> Iterator[StartingServer]:
    """A peer."""
    kind = PEERS[name]
    with ExitStack() as parts:
        port = parts.enter_context(reserved_port())
        plan = network.plan(labels, port, kind.threads, kind.workers)
        told = str(port) if name == "empty" else plan.written()
        path = folder / f"{name}.log"
        log = parts.enter_context(path.open("wb"))
        command = [sys.executable, "-m", kind.module, told, *kind.words]
        process = spawn(command, environment(kind.threads), stdout=log.fileno(), stderr=log.fileno())
        parts.callback(_end, process)
        target = Target(name, f"http://127.0.0.1:{port}", "/predict", (process.pid,), pausable=True)

        def serves() -> bool:
            answer = _get(target.address + kind.ready)
            return answer is not None and answer.status_code == 200

        yield StartingServer(name, process, path, serves, target)


def _get(url: str) -> httpx.Response | None:
    """The answer; None while nobody listens."""
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=60)
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a peer with whatever it started, which all lies in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
    stop(process, 10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
