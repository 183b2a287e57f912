"""Tests of dynamic batching."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engram.errors import ImageError, InputError, UnknownTask
from engram.memory import Memory
from service.errors.exceptions import Overloaded
from service.metrics import Metrics
from service.models.batching import Batcher, InferenceReply, InferenceRequest
from service.models.loaded import load
from testing.data.digits import pixels
from testing.data.models import MODEL
from testing.servers.service import PATIENCE
from vault.settings import VaultSettings
from vault.vault import Vault

WITHOUT_VALUES = torch.zeros(1, 1, 8, 8, dtype=torch.uint8, device="meta")
"""Of the right size, so that it is the pass that fails, with an error of PyTorch's own."""


@dataclass(frozen=True)
class Pair:
    version: int
    memory: Memory


@pytest.fixture(scope="module")
def pairs(learned_store: Path, tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> tuple[Pair, Pair]:
    """A version, and the next one, which decodes otherwise."""
    folder = tmp_path_factory.mktemp("batching") / "store"
    shutil.copytree(learned_store, folder)
    with Vault.connect(VaultSettings(store_url=str(folder), redis_url=redis_url)) as vault:
        head = vault.log.head(MODEL)
        assert head is not None
        following = head.following("decoder", decoding={"decoder": 1, "background": None})
        one, two = (load(vault, vault.models.get(MODEL), commit) for commit in (head, following))
    return Pair(one.version, one.memory), Pair(two.version, two.memory)


@pytest.fixture
def pair(pairs: tuple[Pair, Pair]) -> Pair:
    return pairs[0]


@pytest.fixture
def redecoded(pairs: tuple[Pair, Pair]) -> Pair:
    return pairs[1]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class Gate:
    """What is current, behind a gate that keeps a batch running until it is opened."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.entered = threading.Event()
        self.open = threading.Event()
        self.batches = 0

    def __call__(self) -> Pair:
        pair = self.pair
        self.batches += 1
        self.entered.set()
        assert self.open.wait(PATIENCE), "nobody opened the gate"
        return pair


def images(*digits: int) -> Tensor:
    return torch.stack([torch.from_numpy(pixels(digit, 100))[None] for digit in digits])


def batcher(current: Callable[[], Pair], pool: ThreadPoolExecutor, **changes: Any) -> Batcher:
    options: dict[str, Any] = {"size": 8, "wait": 0.0, "bound": 16, "retry_after": 3} | changes
    return Batcher(current, pool, Metrics(), **options)


def run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(story)


async def behind(gate: Gate, subject: Batcher, *queries: InferenceRequest) -> list[InferenceReply | BaseException]:
    """Replies to queries that all wait while another one runs."""
    first = asyncio.create_task(subject.submit(InferenceRequest(images(0))))
    await asyncio.to_thread(gate.entered.wait)
    waiting = [asyncio.create_task(subject.submit(query)) for query in queries]
    await asyncio.sleep(0)
    gate.open.set()
    await first
    return await asyncio.gather(*waiting, return_exceptions=True)


def test_an_idle_model_answers_at_once_even_with_a_wait(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        subject = batcher(lambda: pair, pool, wait=2 * PATIENCE)
        reply = await asyncio.wait_for(subject.submit(InferenceRequest(images(0, 2), top_k=2)), PATIENCE)
        assert reply.version == pair.version
        assert [answer.task for answer in reply.answers] == ["low", "mid"]
        assert all(len(answer.top) == 2 for answer in reply.answers)

    run(story())


def test_what_comes_meanwhile_is_answered_together(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        replies = await behind(gate, batcher(gate, pool), *[InferenceRequest(images(digit)) for digit in (0, 2, 1, 3)])
        assert [reply.answers[0].task for reply in replies if isinstance(reply, InferenceReply)] == [
            "low",
            "mid",
            "low",
            "mid",
        ]
        assert gate.batches == 2

    run(story())


def test_images_decoded_for_a_version_before_are_answered_by_it_if_the_next_one_decodes_otherwise(
    pair: Pair, redecoded: Pair, pool: ThreadPoolExecutor
) -> None:
    async def story() -> None:
        gate = Gate(redecoded)
        heard: list[tuple[int, int]] = []
        subject = Batcher(
            gate,
            pool,
            Metrics(),
            lambda served, answers: heard.append((served.version, len(answers))),
            size=8,
            wait=0.0,
            bound=16,
            retry_after=3,
        )
        given = [pair, redecoded, pair, None]
        replies = await behind(gate, subject, *[InferenceRequest(images(2), decoded_for=one) for one in given])
        old, new = pair.version, redecoded.version
        assert [reply.version for reply in replies if isinstance(reply, InferenceReply)] == [old, new, old, new]
        assert all(isinstance(reply, InferenceReply) and reply.answers[0].task == "mid" for reply in replies)
        assert heard == [(new, 1), (new, 2)]

    run(story())


def test_images_decoded_for_a_version_before_are_answered_by_the_next_if_it_decodes_alike(
    pair: Pair, pool: ThreadPoolExecutor
) -> None:
    async def story() -> None:
        reply = await batcher(lambda: replace(pair, version=9), pool).submit(
            InferenceRequest(images(0), decoded_for=pair)
        )
        assert reply.version == 9

    run(story())


def test_a_batch_is_no_larger_than_its_size(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        await behind(gate, batcher(gate, pool), *[InferenceRequest(images(0, 1, 2)) for _ in range(5)])
        assert gate.batches == 1 + 3

    run(story())


def test_one_large_query_is_answered_whole_on_one_version(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        gate.open.set()
        subject = batcher(gate, pool, size=2)
        reply = await subject.submit(InferenceRequest(images(0, 1, 2, 3, 0)))
        assert [answer.task for answer in reply.answers] == ["low", "low", "mid", "mid", "low"]
        assert gate.batches == 1

    run(story())


def test_a_query_that_fails_fails_alone(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        good, bad = InferenceRequest(images(0)), InferenceRequest(images(1), task="none")
        first, second, third = await behind(gate, batcher(gate, pool), good, bad, good)
        assert isinstance(first, InferenceReply)
        assert isinstance(second, UnknownTask)
        assert isinstance(third, InferenceReply)
        assert gate.batches == 2

    run(story())


def test_a_query_without_a_task_that_fails_fails_alone(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        queries = [InferenceRequest(images(0), top_k=top_k) for top_k in (1, 0, 2)]
        good, bad, other = await behind(gate, batcher(gate, pool), *queries)
        assert isinstance(bad, InputError)
        assert [len(one.answers[0].top) for one in (good, other) if isinstance(one, InferenceReply)] == [1, 2]

    run(story())


def test_those_that_ask_again_are_gathered_into_one_batch(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        subject = batcher(gate, pool)

        async def ask(times: int, turns: int) -> None:
            for _ in range(times):
                await subject.submit(InferenceRequest(images(0)))
                for _ in range(turns):  # of the event loop, until it asks again
                    await asyncio.sleep(0)

        gate.open.set()
        await asyncio.gather(*(ask(10, number) for number in range(8)))
        assert gate.batches <= 14, "about one for each time, not two"

    run(story())


def test_a_batch_that_fails_leaves_the_next_alone(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        subject = batcher(lambda: pair, pool)
        with pytest.raises(RuntimeError):
            await subject.submit(InferenceRequest(WITHOUT_VALUES))
        with pytest.raises(ImageError):
            await subject.submit(InferenceRequest(torch.zeros(1, 3, 5, 5, dtype=torch.uint8)))
        assert (await subject.submit(InferenceRequest(images(0)))).answers[0].task == "low"

    run(story())


@pytest.mark.parametrize(
    ("bad", "error"),
    [(torch.zeros(1, 3, 5, 5, dtype=torch.uint8), ImageError), (WITHOUT_VALUES, RuntimeError)],
    ids=["of another size", "without values"],
)
def test_a_query_that_no_pass_can_take_fails_alone(
    pair: Pair, pool: ThreadPoolExecutor, bad: torch.Tensor, error: type[Exception]
) -> None:
    async def story() -> None:
        gate = Gate(pair)
        good = InferenceRequest(images(0))
        subject = batcher(gate, pool)
        first, second, third = await behind(gate, subject, good, InferenceRequest(bad), good)
        assert isinstance(first, InferenceReply)
        assert isinstance(second, error)
        assert isinstance(third, InferenceReply)
        assert (await subject.submit(good)).answers[0].task == "low"

    run(story())


def test_a_pass_that_memory_does_not_suffice_for_is_overload(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        subject = batcher(lambda: pair, pool)
        monstrous = images(0).expand(2**45, -1, -1, -1)
        with pytest.raises(Overloaded):
            await subject.submit(InferenceRequest(monstrous, task="low", logits=True))
        assert (await subject.submit(InferenceRequest(images(0)))).answers[0].task == "low"

    run(story())


def test_the_queue_goes_on_when_nobody_can_listen(pair: Pair, pool: ThreadPoolExecutor) -> None:
    def on_answers(served: object, answers: object) -> None:
        raise ZeroDivisionError

    async def story() -> None:
        gate = Gate(pair)
        subject = batcher(gate, pool, on_answers=on_answers, size=1)
        replies = await asyncio.wait_for(
            behind(gate, subject, InferenceRequest(images(0)), InferenceRequest(images(2))), PATIENCE
        )
        assert [reply.answers[0].task for reply in replies if isinstance(reply, InferenceReply)] == ["low", "mid"]

    run(story())


def test_logits_are_computed_by_themselves(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        exact = InferenceRequest(images(1, 0), task="low", logits=True)
        replies = await behind(
            gate,
            batcher(gate, pool),
            InferenceRequest(images(0)),
            exact,
            InferenceRequest(images(2)),
            InferenceRequest(images(3)),
        )
        assert gate.batches == 1 + 3
        reply = replies[1]
        assert isinstance(reply, InferenceReply)
        expected = pair.memory.observe(images(1, 0)).logits("low")
        assert torch.equal(torch.tensor(reply.logits, dtype=torch.float32), expected)

    run(story())


def test_a_full_queue_refuses_at_once(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        subject = batcher(gate, pool, bound=3)
        first = asyncio.create_task(subject.submit(InferenceRequest(images(0))))
        await asyncio.to_thread(gate.entered.wait)
        second = asyncio.create_task(subject.submit(InferenceRequest(images(0, 1, 2, 3))))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await asyncio.wait_for(
                subject.submit(InferenceRequest(images(0))), PATIENCE / 2
            )  # before the gate gives up
        assert refused.value.retry_after == 3
        gate.open.set()
        await asyncio.gather(first, second)
        assert (await subject.submit(InferenceRequest(images(0)))).answers

    run(story())


def test_who_has_gone_is_not_answered(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        subject = batcher(gate, pool)
        first = asyncio.create_task(subject.submit(InferenceRequest(images(0))))
        await asyncio.to_thread(gate.entered.wait)
        gone = asyncio.create_task(subject.submit(InferenceRequest(images(1))))
        await asyncio.sleep(0)
        gone.cancel()
        gate.open.set()
        await first
        await asyncio.gather(gone, return_exceptions=True)
        assert gate.batches == 1

    run(story())


def test_a_batch_stays_with_the_version_it_began_on(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        subject = batcher(gate, pool)
        first = asyncio.create_task(subject.submit(InferenceRequest(images(0))))
        await asyncio.to_thread(gate.entered.wait)
        gate.pair = Pair(pair.version + 1, pair.memory)
        second = asyncio.create_task(subject.submit(InferenceRequest(images(0))))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await first).version == pair.version
        assert (await second).version == pair.version + 1

    run(story())


def test_a_busy_model_lets_a_batch_fill_up(pair: Pair, pool: ThreadPoolExecutor) -> None:
    async def story() -> None:
        gate = Gate(pair)
        subject = batcher(gate, pool, wait=2 * PATIENCE, size=2)
        first = asyncio.create_task(subject.submit(InferenceRequest(images(0))))
        await asyncio.to_thread(gate.entered.wait)
        second = asyncio.create_task(subject.submit(InferenceRequest(images(1))))
        await asyncio.sleep(0)
        gate.open.set()
        await first
        await asyncio.sleep(0.05)
        third = await asyncio.wait_for(subject.submit(InferenceRequest(images(2))), PATIENCE)
        await second
        assert third.answers
        assert gate.batches == 2

    run(story())
