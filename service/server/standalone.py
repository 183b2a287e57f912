"""Stack of `engram serve`: Redis, one worker and the service on one machine, over one folder."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import redis

from service.auth.exposure import UnsafeExposure, guarded
from service.lifecycle.processes import ChildProcess, Misset, ProcessSupervisor
from service.lifecycle.signals import Stopped, ask_to_stop, stop_on_signals, undisturbed_end
from service.server.process_group import ProcessGroup, socket_folder, usual_processes
from service.server.redis_program import NoRedisProgram, redis_program
from service.settings import ServiceSettings, given
from vault.errors import UnsoundStore
from vault.settings import VaultSettings
from vault.vault import Vault

NICENESS = 5
"""How far the worker steps back behind the service for processor time."""

REDIS_SECONDS = 15.0
"""How long Redis may take to answer for the first time."""


class StandaloneError(Exception):
    """A stack that cannot be started; the text is one sentence for the person who tried."""


def worker_threads() -> int:
    """All processors this process may use: the worker is niced, and gives way to the service."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@contextlib.contextmanager
def claim(data: Path, address: str) -> Iterator[IO[str]]:
    """A block in which this process alone uses the data folder; yields the locked file, which says who does.

    Raises
    ------
    StandaloneError
        Another process holds it, or it cannot be written to.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "serve.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise StandaloneError(f"The data folder {data} cannot be used: {error.strerror or error}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise StandaloneError(f"The data folder {data} is in use by {_holder(file.read())}.") from error
        file.seek(0)
        _sweep(file.read())
        file.truncate(0)
        json.dump({"pid": os.getpid(), "address": address}, file)
        file.flush()
        yield file


def _holder(text: str) -> str:
    try:
        held = json.loads(text)
        return f"another engram serve (process {held['pid']}, {held['address']})"
    except (ValueError, KeyError, TypeError):
        return "another engram serve"


def _sweep(text: str) -> None:
    """Remove the folder of a predecessor that was killed and could not do so."""
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        left = Path(json.loads(text)["run"])
        if left.name.startswith("engram-") and (left / "redis.sock").is_socket():
            shutil.rmtree(left)


class StandaloneStack:
    """Redis and the worker beside the service, to be used as a context.

    Parameters
    ----------
    data
        The folder that everything lasting is in; claimed while the context is open.
    address
        Where the service will listen; the error that another process gets for the same folder names it.

    Raises
    ------
    StandaloneError, NoRedisProgram, UnsoundStore
        On entering: the folder is in use, there is no Redis, or the folder does not keep racing writers apart.
    """

    def __init__(self, data: Path, address: str) -> None:
        self.data = data.absolute()
        self._address = address
        self._supervisor = ProcessSupervisor(ask_to_stop)
        self._stack = contextlib.ExitStack()
        self._run: Path | None = None
        self.redis_url = ""
        self.store_url = str(self.data / "store")

    def __enter__(self) -> StandaloneStack:
        with contextlib.ExitStack() as stack:
            claimed = stack.enter_context(claim(self.data, self._address))
            run = self._run = stack.enter_context(socket_folder())
            claimed.seek(0)
            claimed.truncate(0)
            json.dump({"pid": os.getpid(), "address": self._address, "run": str(run)}, claimed)
            claimed.flush()
            stack.callback(self._supervisor.stop)
            self.redis_url = f"unix://{run / 'redis.sock'}"
            self._supervisor.start(ChildProcess("Redis", self._redis_command(run), os.environ, patience=2.0))
            self._wait_for_redis()
            self._check_backends()
            self._supervisor.start(
                ChildProcess(
                    "worker", [sys.executable, "-P", "-m", "worker"], self._worker_environment(), niceness=NICENESS
                )
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def begin_to_stop(self) -> None:
        """Ask the worker to stop at its next step, so that it does while the service still drains."""
        self._supervisor.ask_to_stop("worker")

    def group(self, listening: socket.socket, processes: int) -> ProcessGroup:
        """The further processes of the service, over the same Redis and folder."""
        environment = {
            **os.environ,
            "ENGRAM_REDIS_URL": self.redis_url,
            "ENGRAM_REDIS_PASSWORD": "",
            "ENGRAM_STORE_URL": self.store_url,
        }
        assert self._run is not None, "the stack is entered"
        folder = self._run / "service"
        folder.mkdir()
        return ProcessGroup(self._supervisor, folder, listening.getsockname()[:2], processes, environment)

    def sound(self) -> contextlib.AbstractContextManager[None]:
        """A block in which a process whose settings cannot be used stops the program; raises Misset."""
        return self._supervisor.sound()

    def _redis_command(self, run: Path) -> list[str]:
        # Nothing is written to disk: whatever Redis holds can be had again from the store.
        options = {
            "port": "0",
            "unixsocket": str(run / "redis.sock"),
            "unixsocketperm": "700",
            "dir": str(run),
            "logfile": str(run / "redis.log"),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        return [redis_program(), *(word for name, value in options.items() for word in (f"--{name}", value))]

    def _worker_environment(self) -> dict[str, str]:
        threads = os.environ.get("ENGRAM_WORKER_THREADS", str(worker_threads()))
        return {
            **os.environ,
            "ENGRAM_REDIS_URL": self.redis_url,
            "ENGRAM_REDIS_PASSWORD": "",  # this Redis has none, whatever another has
            "ENGRAM_STORE_URL": self.store_url,
            "ENGRAM_WORKER_THREADS": threads,
            "OMP_NUM_THREADS": threads,
        }

    def _check_backends(self) -> None:
        settings = VaultSettings(store_url=self.store_url, redis_url=self.redis_url, redis_password=None)
        with Vault.connect(settings) as vault:
            vault.check_at_start(ask_to_stop)

    def _wait_for_redis(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            deadline = time.monotonic() + REDIS_SECONDS
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError as error:
                    if time.monotonic() > deadline:
                        raise StandaloneError(f"Redis did not start within {REDIS_SECONDS:.0f} s.") from error
                    time.sleep(0.02)


def serve(
    data: Path, host: str, port: int, options: Mapping[str, Any] | None = None, *, without_keys: bool = False
) -> int:
    """Run everything until SIGINT, SIGTERM or SIGHUP, then end it in order; returns the exit status.

    `without_keys` lets everybody in who can reach the address, as `ENGRAM_KEYS=off` does; `options` are settings that
    stand instead of what the environment says, or None where it is to be asked.

    Must be called from the main thread, which gets the signals.
    """
    from service.server.server import listen

    stop_on_signals()
    try:
        settings = ServiceSettings(store_url=str(data.absolute() / "store"), **given(**(options or {})))
        settings = settings.model_copy(update={"processes": settings.processes or usual_processes()})
        try:
            listening = listen(host, port)
        except OSError as error:
            raise StandaloneError(f"Cannot listen on {host}:{port}: {error.strerror or error}.") from error
        with listening:
            return _serve(guarded(settings, listening, without_keys=without_keys), data, listening)
    except (StandaloneError, NoRedisProgram, UnsafeExposure) as error:
        print(error, file=sys.stderr)
        return 1
    except Misset as error:
        print(error, file=sys.stderr)
        return os.EX_CONFIG
    except UnsoundStore as error:
        print(f"{error} ({error.code})", file=sys.stderr)
        return os.EX_CONFIG
    except Stopped:
        return 0


def _serve(settings: ServiceSettings, data: Path, listening: socket.socket) -> int:
    from service.server.server import url

    with StandaloneStack(data, url(listening)) as stack, undisturbed_end(), stack.sound():
        # What imports torch comes last, while the worker is starting up beside it.
        from engram.errors import DeviceMissing
        from engram.runtime import set_aside_imports
        from service.app import create_app
        from service.lifecycle.device import serving_device
        from service.server.server import Server
        from service.ui.static_files import PAGE

        settings = settings.model_copy(update={"redis_url": stack.redis_url})
        try:
            serving_device(settings)
        except DeviceMissing as error:
            print(f"{error} ({error.code})", file=sys.stderr)
            return os.EX_CONFIG
        group = stack.group(listening, settings.processes or 1)
        app = create_app(group.own.share(settings), group.own.siblings())
        address = url(listening)

        def on_listening() -> None:
            print(f"Engram is listening on {address}\nIts page: {address}/{PAGE}", flush=True)
            group.start(settings)

        def on_stopping() -> None:
            stack.begin_to_stop()
            group.begin_to_stop()

        server = Server(app, on_listening, on_stopping, folder=group.meeting)
        set_aside_imports()
        server.run(sockets=[listening])
        return 0 if server.started else 1
