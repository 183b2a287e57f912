"""Overload: more clients than the service admits, with valid and invalid requests of every kind."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx

from testing.data.digits import archive, png
from testing.processes.stack import Stack

MODEL = "crowded"
LOW_LIMITS = {
    "ENGRAM_QUEUE_IMAGES": "48",
    "ENGRAM_EXPLAIN_QUEUE": "3",
    "ENGRAM_EVENT_CLIENTS": "4",
    "ENGRAM_EVENT_CLIENTS_PER_JOB": "2",
    "ENGRAM_MAX_REQUESTS": "40",
    "ENGRAM_DRAIN_SECONDS": "0",
}
"""Environment of a service with limits so low that a few clients exceed them."""

_PNG = {"Content-Type": "image/png"}
_JSON = {"Content-Type": "application/json"}
_PAUSE = 0.05
"""Seconds that a refused client waits, which is much less than `Retry-After`."""

Act = Callable[[httpx.AsyncClient], Awaitable[httpx.Response]]


class Crowd:
    """Clients that send requests back to back, as long as its context is open."""

    def __init__(self, address: str, job: str, clients: int, seed: int = 0) -> None:
        self._address = address
        self._job = job
        self._clients = clients
        self._random = random.Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="crowd")
        self.statuses: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        """Number of 429 and 503 answers, by kind of request."""
        self.seconds: dict[str, list[float]] = defaultdict(list)
        """Durations of all other answers, by kind of request."""
        self.wrong: list[str] = []
        """Wrong answers, and requests without an answer."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as clients:
            for _ in range(self._clients):
                clients.create_task(self._client())

    async def _client(self) -> None:
        acts = {name: (weight, expected, act) for name, weight, expected, act in self._acts()}
        weights = [weight for weight, _, _ in acts.values()]
        async with httpx.AsyncClient(base_url=self._address, timeout=120) as client:
            while not self._over.is_set():
                [name] = self._random.choices(list(acts), weights)
                _, expected, act = acts[name]
                began = time.monotonic()
                try:
                    answer = await act(client)
                except Exception as error:
                    self.wrong.append(f"{name}: {error!r}")
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code in (429, 503):
                    self.refused[name] += 1
                    if not answer.headers.get("Retry-After", "").isdigit():
                        self.wrong.append(f"{name}: {answer.status_code} without Retry-After")
                    await asyncio.sleep(_PAUSE)
                    continue
                self.seconds[name].append(time.monotonic() - began)
                if answer.status_code != expected:
                    self.wrong.append(f"{name}: {answer.status_code} {answer.text[:200]}")

    def _acts(self) -> list[tuple[str, int, int, Act]]:
        """The kinds of requests: name, weight, expected status, and the request."""
        images = [png(digit, index) for digit in (0, 1) for index in range(100, 110)]
        parts = [("image", ("x.png", image, "image/png")) for image in images]
        path = f"/v1/models/{MODEL}"

        def get(where: str) -> Act:
            return lambda client: client.get(where)

        def post(where: str, content: bytes, headers: dict[str, str]) -> Act:
            return lambda client: client.post(where, content=content, headers=headers)

        return [
            ("predict", 50, 200, post(f"{path}/predict", images[0], _PNG)),
            ("batch", 12, 200, lambda client: client.post(f"{path}/predict", files=parts)),
            ("explain", 8, 200, post(f"{path}/explain", images[0], _PNG)),
            ("older version", 2, 200, post(f"{path}/predict?version=1", images[0], _PNG)),
            ("model", 3, 200, get(path)),
            ("models", 2, 200, get("/v1/models")),
            ("versions", 2, 200, get(f"{path}/versions")),
            ("certificate", 2, 200, get(f"{path}/versions/1/certificate")),
            ("novelty", 2, 200, get(f"{path}/novelty")),
            ("jobs", 1, 200, get("/v1/jobs?limit=5")),
            ("events", 3, 200, self._follow),
            ("metrics", 1, 200, get("/metrics")),
            ("not an image", 4, 422, post(f"{path}/predict", b"Dear editor", _PNG)),
            ("not JSON", 3, 400, post(f"{path}/predict", b"{", _JSON)),
            ("no such model", 3, 404, post(f"/v1/models/no-{self._random.random()}/predict", images[0], _PNG)),
            ("no such path", 2, 404, get(f"/no/{self._random.random()}")),
        ]

    async def _follow(self, client: httpx.AsyncClient) -> httpx.Response:
        """Follow the events of a job that is over; half of the clients disconnect at once."""
        async with client.stream("GET", f"/v1/jobs/{self._job}/events") as answer:
            if answer.status_code != 200 or self._random.random() < 0.5:
                await answer.aread()
            return answer


class Learning:
    """Client that creates, trains and deletes one model after another, as long as its context is open."""

    def __init__(self, stack: Stack, **options: object) -> None:
        self._stack = stack
        self._options = options
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="learning")
        self.jobs: Counter[str] = Counter()
        """Number of jobs by final state."""
        self.refused = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        archives = {"low": archive((0, 1)), "high": archive((8, 9))}
        number = 0
        while not self._over.is_set():
            number += 1
            try:
                self._learn(f"learning-{number}", archives)
            except Exception as error:
                self.wrong.append(repr(error))

    def _learn(self, model: str, archives: dict[str, bytes]) -> None:
        self._again(lambda: self._stack.client.post("/v1/models", json=self._stack.small(model)))
        for task, data in archives.items():
            answer = self._again(lambda task=task, data=data: self._stack.submit(model, task, data, self._options))  # type: ignore[misc]
            if answer is not None:
                self.jobs[self._state(answer.headers["Location"])] += 1
        self._again(lambda: self._stack.client.delete(f"/v1/models/{model}"))

    def _state(self, job: str) -> str:
        while True:
            answer = self._again(lambda: self._stack.client.get(job), whatever_happens=True)
            assert answer is not None, "it is asked until it is answered"
            state: str = answer.json()["state"]
            if state in ("succeeded", "failed", "cancelled"):
                return state
            time.sleep(0.1)

    def _again(self, ask: Callable[[], httpx.Response], whatever_happens: bool = False) -> httpx.Response | None:
        """The answer once the request is admitted; None if the context ends before."""
        while whatever_happens or not self._over.is_set():
            answer = ask()
            if answer.status_code not in (429, 503):
                answer.raise_for_status()
                return answer
            self.refused += 1
            if not answer.headers.get("Retry-After", "").isdigit():
                self.wrong.append(f"{answer.status_code} without Retry-After")
            with suppress(ValueError):
                time.sleep(0.1)
        return None


def prepare(stack: Stack) -> str:
    """Create the model that the crowd uses; returns the id of its last job."""
    stack.create(MODEL)
    stack.learn(MODEL, "low", (0, 1))
    response = stack.submit(MODEL, "mid", archive((2, 3)))
    assert stack.finish(response)["state"] == "succeeded"
    return response.headers["Location"].rsplit("/", 1)[1]
