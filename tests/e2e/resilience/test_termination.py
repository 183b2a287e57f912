"""Tests of graceful termination of a replica behind a load balancer."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from service.lifecycle.processes import stop
from testing.data.digits import archive, png
from testing.processes.forked import fork
from testing.processes.processes import eventually, plain_environment
from testing.processes.stack import Stack, started
from testing.servers.faulty_s3 import FaultyS3
from testing.servers.s3 import AWS

MODEL = "staying"
PREDICT = f"/v1/models/{MODEL}/predict"
PNG = {"Content-Type": "image/png"}


@dataclass
class Balanced:
    """Clients behind a load balancer, which sends requests to the replicas that were ready at its last probe."""

    replicas: list[str]
    ready: list[str] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def probe(self, replica: str) -> None:
        """Probe one replica, independently of the others."""
        async with httpx.AsyncClient(timeout=2) as client:
            while not self.over.is_set():
                ready = await self._is_ready(client, replica)
                self.ready = [one for one in self.replicas if (ready if one == replica else one in self.ready)]
                await asyncio.sleep(0.1)

    async def _is_ready(self, client: httpx.AsyncClient, replica: str) -> bool:
        try:
            return (await client.get(f"{replica}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def ask(self, number: int) -> None:
        async with httpx.AsyncClient(timeout=60) as client:
            while not self.over.is_set():
                if not self.ready:
                    await asyncio.sleep(0.01)
                    continue
                number += 1
                replica = self.ready[number % len(self.ready)]
                try:
                    (await client.post(replica + PREDICT, content=png(0, 100), headers=PNG)).raise_for_status()
                except Exception as error:
                    self.failures.append(repr(error))
                self.answers[replica] = self.answers.get(replica, 0) + 1
                await asyncio.sleep(0.02)


async def listens(replica: str) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", int(replica.rpartition(":")[2]))
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def slowly(replica: str, begun: asyncio.Event) -> int:
    """Status of a request whose body is complete only when the replica accepts no more connections."""

    async def body() -> AsyncIterator[bytes]:
        image = png(0, 100)
        yield image[:20]
        begun.set()
        while await listens(replica):
            await asyncio.sleep(0.2)
        yield image[20:]

    async with httpx.AsyncClient(timeout=120) as client:
        return (await client.post(replica + PREDICT, content=body(), headers=PNG)).status_code


async def followed(replica: str, job: str, begun: asyncio.Event) -> bool:
    """Whether the event stream of an unfinished job was ended in order."""
    async with httpx.AsyncClient(timeout=120) as client, client.stream("GET", f"{replica}{job}/events") as answer:
        assert answer.status_code == 200
        begun.set()
        async for _ in answer.aiter_lines():
            pass
        return True


async def terminated(stack: Stack, job: str) -> tuple[Balanced, int, bool]:
    leaving = stack.services[1]
    load = Balanced(stack.replicas)
    async with asyncio.TaskGroup() as tasks:
        for replica in stack.replicas:
            tasks.create_task(load.probe(replica))
        for number in range(8):
            tasks.create_task(load.ask(number))
        while load.answers.get(stack.replicas[1], 0) < 10:
            await asyncio.sleep(0.05)
        asked, follows = asyncio.Event(), asyncio.Event()
        slow = tasks.create_task(slowly(stack.replicas[1], asked))
        stream = tasks.create_task(followed(stack.replicas[1], job, follows))
        await asked.wait()
        await follows.wait()
        leaving.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(leaving.wait, 180) == 0
        seen = load.answers.get(stack.replicas[0], 0)
        while load.answers.get(stack.replicas[0], 0) < seen + 20:
            await asyncio.sleep(0.05)
        load.over.set()
    return load, slow.result(), stream.result()


def test_no_request_fails_when_one_of_two_replicas_is_terminated(tmp_path: Path) -> None:
    # Long enough for the load balancer to notice, and for what is under way to be done, on a busy machine too.
    with started(
        tmp_path, ENGRAM_DRAIN_SECONDS="8", ENGRAM_GRACE_SECONDS="120", ENGRAM_SLOW_BODY_SECONDS="120"
    ) as stack:
        stack.create(MODEL)
        stack.learn(MODEL, "first", (0, 1))
        stack.create("learning")
        endless = {"epochs": 1000, "patience": 1000, "batch_size": 2}
        long = stack.submit("learning", "long", archive((0, 1)), endless)
        load, slow, ended = asyncio.run(terminated(stack, long.headers["Location"]))
        stack.client.post(f"{long.headers['Location']}/cancel").raise_for_status()
    assert load.failures == []
    assert load.answers[stack.replicas[1]] > 0
    assert (slow, ended) == (200, True)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("0.0.0.0", id="before it listens, since it asks for keys there"),
        pytest.param("127.0.0.1", id="while it listens"),
    ],
)
def test_a_service_whose_storage_hangs_stops_all_the_same(tmp_path: Path, host: str) -> None:
    s3 = FaultyS3("http://127.0.0.1:9")
    s3.chances = {"hang": 1.0}
    environment = plain_environment() | AWS
    environment |= {"ENGRAM_STORE_URL": "s3://bucket/store", "ENGRAM_S3_ENDPOINT": s3.url, "ENGRAM_DRAIN_SECONDS": "0"}
    # Each of its questions hangs for minutes.
    environment["ENGRAM_STORE_TIMEOUT_SECONDS"] = "200"
    words = ["service", "--port", "0", "--host", host]
    with (tmp_path / "service.log").open("wb") as log:
        service = fork("service", words, environment, stdout=log.fileno(), stderr=log.fileno())
    try:
        assert eventually(lambda: s3.seen["hang"] >= (1 if host == "0.0.0.0" else 2), 180)
        time.sleep(0.5)
        service.send_signal(signal.SIGTERM)
        assert service.wait(60) == 0
    finally:
        stop(service, 1)
        s3.close()
