"""`docker-compose.yml` run as plain processes.

The commands, environment, secrets and order are those of the file; the ports are free ones of this machine, and the
store is moto.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis
import yaml

from service.lifecycle.processes import spawn, wait
from service.server.redis_program import redis_program
from testing.processes.processes import plain_environment, reserved_port

ROOT = Path(__file__).parents[2]
Started = dict[str, list[tuple[subprocess.Popen[bytes], int]]]


def parse(text: str, environment: dict[str, str], part: str = "services") -> dict[str, dict[str, Any]]:
    """The services, or another part, of a compose file, with `${NAME:-default}` filled in and `$$` as `$`."""

    def fill(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        value = environment.get(match["name"], "")
        return value if value or match["default"] is None else match["default"]

    pattern = r"(?P<escaped>\$\$)|\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}"
    found: dict[str, dict[str, Any]] = yaml.safe_load(re.sub(pattern, fill, text))[part]
    return found


def order(services: dict[str, dict[str, Any]]) -> list[str]:
    """Names of the services without a profile, each after its dependencies."""
    placed: list[str] = []
    waiting = [name for name, service in services.items() if "profiles" not in service]
    while waiting:
        name = next(name for name in waiting if set(services[name].get("depends_on", {})) <= set(placed))
        placed.append(name)
        waiting.remove(name)
    return placed


class Compose:
    """The stack of the compose file, which runs inside the context of `up`."""

    def __init__(self, folder: Path) -> None:
        self.services = parse((ROOT / "docker-compose.yml").read_text(), {})
        self.order = order(self.services)
        self.processes: Started = {}
        self._folder = folder
        self._secrets = folder / "secrets"
        self._secrets.mkdir()
        for name, secret in parse((ROOT / "docker-compose.yml").read_text(), {}, "secrets").items():
            shutil.copyfile(ROOT / secret["file"], self._secrets / name)
        self._hosts: dict[str, str] = {}
        self._ports = ExitStack()

    @property
    def addresses(self) -> list[str]:
        """Addresses of the replicas of `service`."""
        return [f"http://127.0.0.1:{port}" for _, port in self.processes["service"]]

    @contextmanager
    def up(self, scale: dict[str, int]) -> Iterator[Compose]:
        """Start all services in order, each once its dependencies are healthy or done."""
        try:
            for name in self.order:
                replicas = scale.get(name) or self.services[name].get("deploy", {}).get("replicas", 1)
                self.processes[name] = []
                for _ in range(replicas):
                    self._start(name)
                for process, port in self.processes[name]:
                    self._wait(name, process, port)
            yield self
        finally:
            for name in reversed(self.order):
                running = [process for process, _ in self.processes.get(name, [])]
                for process in running:
                    process.terminate()
                for process in running:  # one signal only, as from an orchestrator
                    wait(process, 60)
            self._ports.close()

    def _start(self, name: str) -> None:
        service = self.services[name]
        command = [self._script(service, str(word)) for word in (*service.get("entrypoint", ()), *service["command"])]
        port = self._ports.enter_context(reserved_port())
        where = self._folder / name
        where.mkdir(exist_ok=True)
        environment = plain_environment() | {
            key: self._here(str(value)) for key, value in service.get("environment", {}).items()
        }
        environment |= {"ENGRAM_SECRETS_DIR": str(self._secrets), "SECRETS_FOLDER": str(self._secrets)}
        if name in ("redis", "bucket"):
            environment["TMPDIR"] = str(where)
        if name == "bucket":
            subprocess.run([self._here(word) for word in command], env=environment, check=True)
            return
        if name == "redis":
            (where / "valkey-server").symlink_to(redis_program())
            environment["PATH"] = f"{where}:{environment['PATH']}"
            command += ["--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        elif name == "store":
            command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
        else:
            assert command[0] == "engram", "the images hold one program"
            program = str(Path(sys.executable).parent / "engram")
            command = [program, *(str(port) if word == "8000" else word for word in command[1:])]
        if name not in ("redis", "bucket"):
            environment["TMPDIR"] = self._temporary(name, port)
        with (where / f"{port}.log").open("wb") as log, _inside(where):
            process = spawn(command, environment, stdout=log.fileno(), stderr=log.fileno())
        self.processes[name].append((process, port))
        self._hosts[name] = f"127.0.0.1:{port}"

    def _script(self, service: dict[str, Any], word: str) -> str:
        """The file of this machine that is mounted at the place `word`, else the word."""
        mounted = (volume.split(":") for volume in service.get("volumes", ()) if volume.startswith("./"))
        return next((str(ROOT / source) for source, target, _ in mounted if target == word), word)

    def _temporary(self, name: str, port: int) -> str:
        """Where a process has its temporary files: each container has a folder of its own."""
        folder = self._folder / name / f"tmp-{port}"
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    def _here(self, value: str) -> str:
        """Replace `redis:6379` and `store:8333` by their addresses on this machine."""
        for name, address in self._hosts.items():
            value = re.sub(rf"(?<=[/@]){name}:\d+", address, value)
        return value

    def _wait(self, name: str, process: subprocess.Popen[bytes], port: int) -> None:
        """Wait until the process is healthy by the compose file's own test, as far as that can run here."""
        test = self.services[name]["healthcheck"]["test"]
        deadline = time.monotonic() + 180
        while not self._healthy(name, test, port):
            assert process.poll() is None, f"{name} ended: {self.log(name, port)}"
            assert time.monotonic() < deadline, f"{name} is not healthy: {self.log(name, port)}"
            time.sleep(0.5)  # each test starts a Python, beside what it waits for

    def _healthy(self, name: str, test: list[str], port: int) -> bool:
        if name == "redis":
            assert "valkey-cli ping" in test[1], "the reply to PING decides"
            password = (self._secrets / "engram_redis_password").read_text()
            try:
                with redis.Redis(port=port, password=password) as client:
                    return bool(client.ping())
            except redis.ConnectionError:
                return False
        if name == "store":
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        environment = plain_environment() | {
            key: self._here(str(value)) for key, value in self.services[name]["environment"].items()
        }
        environment |= {"ENGRAM_SECRETS_DIR": str(self._secrets), "TMPDIR": self._temporary(name, port)}
        if test[1] == "engram":
            command = [str(Path(sys.executable).parent / "engram"), *test[2:]]
        else:
            assert test[:3] == ["CMD", "python", "-c"], "the check is a program that is in the image"
            command = [sys.executable, "-c", test[3].replace(":8000", f":{port}")]
        return subprocess.run(command, env=environment, capture_output=True).returncode == 0

    def log(self, name: str, port: int) -> str:
        """The end of a process's log."""
        return (self._folder / name / f"{port}.log").read_text(errors="replace")[-3000:]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
