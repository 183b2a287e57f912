"""Redis or Valkey server process on a Unix socket, without persistence."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time

import redis

from service.server.redis_program import redis_program


class RedisServer:
    """A Redis or Valkey server process on a Unix socket of its own, which writes nothing to disk.

    Parameters
    ----------
    program
        Path of the server program; by default the one that `engram serve` would take.
    options
        Further options of the server, such as `{"requirepass": "..."}`.
    """

    def __init__(self, program: str | None = None, **options: str) -> None:
        self._program = program or redis_program()
        self._options = options
        self._folder = tempfile.mkdtemp(prefix="engram-redis-")
        self.socket = f"{self._folder}/redis.sock"
        self.url = f"unix://{self.socket}"
        self.start()

    def start(self) -> None:
        """Start an empty server and wait until it answers."""
        options = {"port": "0", "unixsocket": self.socket, "save": "", "dir": self._folder, **self._options}
        self._process = subprocess.Popen(
            [self._program, *(word for name, value in options.items() for word in (f"--{name}", value))],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with redis.Redis.from_url(self.url) as client:
                    client.ping()
                return
            except redis.exceptions.AuthenticationError:
                return
            except redis.exceptions.ConnectionError:
                assert time.monotonic() < deadline, "the Redis server does not answer"
                time.sleep(0.02)

    @property
    def pid(self) -> int:
        """Number of the server's process."""
        return self._process.pid

    def stop(self) -> None:
        """Kill the server; its data is lost."""
        self._process.kill()
        self._process.wait()

    def remove(self) -> None:
        """Kill the server and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)
