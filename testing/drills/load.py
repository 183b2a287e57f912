"""Steady load of predictions on several replicas."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx


@dataclass
class Load:
    """Clients that send predictions one after another, as long as its context is open."""

    replicas: list[str]
    model: str
    image: bytes
    connections: int = 16
    pause: float = 0.0
    """Seconds between an answer and the next question: without, they take all of the machine that they can get."""
    failures: list[str] = field(default_factory=list)
    answers: int = 0
    versions: set[int] = field(default_factory=set)
    first_seen: dict[tuple[str, int], float] = field(default_factory=dict)
    """Time (seconds since 1970) of the first answer, by replica and version."""
    slowest: float = 0.0
    seconds: list[float] = field(default_factory=list)
    """What each answer took."""

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def serves(self, version: int) -> bool:
        """Whether every replica has answered with this version."""
        return all((replica, version) in self.first_seen for replica in self.replicas)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for number in range(self.connections):
                clients.create_task(self._client(self.replicas[number % len(self.replicas)]))

    async def _client(self, replica: str) -> None:
        highest = 0
        async with httpx.AsyncClient(base_url=replica, timeout=60) as client:
            while not self._over.is_set():
                began = time.monotonic()
                try:
                    response = await client.post(
                        f"/v1/models/{self.model}/predict", content=self.image, headers={"Content-Type": "image/png"}
                    )
                    response.raise_for_status()
                    answer = response.json()
                    assert "error" not in answer["predictions"][0], answer
                    assert answer["version"] >= highest, "a replica went back to an older version"
                except Exception as error:
                    self.failures.append(repr(error))
                    await asyncio.sleep(self.pause)
                    continue
                highest = answer["version"]
                self.answers += 1
                self.versions.add(highest)
                self.first_seen.setdefault((replica, highest), time.time())
                self.seconds.append(time.monotonic() - began)
                self.slowest = max(self.slowest, self.seconds[-1])
                await asyncio.sleep(self.pause)
