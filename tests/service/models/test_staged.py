"""Tests of batches and swaps of a model that runs only the tasks that are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.errors import UnknownTask
from engram.memory import Memory
from engram.methods import registry
from engram.recognition.predictions import Observation
from service.models.batching import InferenceReply, InferenceRequest, _replies
from service.models.loaded import load
from testing.data import lazy
from testing.data.digits import QUICK, SMALL_MODEL, pixels
from testing.data.models import TASKS, create, examples, learn
from vault.vault import Vault

MORE = {**TASKS, "high": (4, 5)}


@pytest.fixture(autouse=True)
def _staged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CLASSES, "eidetic", lazy.REGISTERED)


class Counting(Memory):
    """A model that writes down what it is asked."""

    asked: list[tuple[int, str | None, Any]]

    def observe(
        self, images: Tensor, task: str | None = None, contenders: int | Literal["all"] | None = None
    ) -> Observation:
        self.asked.append((len(images), task, contenders))
        return super().observe(images, task, contenders)


@dataclass(frozen=True)
class Served:
    memory: Counting
    version: int = 1
    problems: list[str] = field(default_factory=list)


@pytest.fixture
def served() -> Served:
    memory = Counting(Memory.create(Definition.model_validate(SMALL_MODEL | {"recipe": 2})).method)
    for task, digits in MORE.items():
        memory.learn(task, examples(digits), LearnOptions.model_validate(QUICK))
    memory.asked = []
    return Served(memory)


def images(*digits: int) -> Tensor:
    return torch.stack([torch.from_numpy(pixels(digit, 100))[None] for digit in digits])


def labels(reply: InferenceReply | Exception) -> list[str]:
    assert isinstance(reply, InferenceReply)
    return [answer.label for answer in reply.answers]


def test_images_that_ask_for_the_same_go_together(served: Served) -> None:
    queries = [
        InferenceRequest(images(0, 2)),
        InferenceRequest(images(3), task="mid", contenders=1),
        InferenceRequest(images(1, 0), task="low"),
        InferenceRequest(images(4)),
        InferenceRequest(images(2), task="mid"),
        InferenceRequest(images(5), contenders=1),
        InferenceRequest(images(5), contenders="all"),
        InferenceRequest(images(5), contenders=1),
    ]
    replies = _replies(served, queries, 32)
    asked = sorted(served.memory.asked, key=str)
    expected = [(3, None, None), (2, "mid", 1), (2, "low", None), (2, None, 1), (1, None, "all")]
    assert asked == sorted(expected, key=str)
    said = [[0, 2], [3], [1, 0], [4], [2], [5], [5], [5]]
    assert [*map(labels, replies)] == [[f"digit-{digit}" for digit in digits] for digits in said]


def test_an_answer_in_a_batch_is_the_one_that_is_given_alone(served: Served) -> None:
    queries = [InferenceRequest(images(digit), task=task, top_k=2) for task in MORE for digit in range(6)]
    assert _replies(served, queries, 32) == [_replies(served, [query], 32)[0] for query in queries]


def test_a_task_that_is_not_there_fails_for_those_that_ask_for_it(served: Served) -> None:
    queries = [InferenceRequest(images(0), task=task) for task in ("low", "none", "low", "none")]
    first, second, third, fourth = _replies(served, queries, 32)
    assert labels(first) == labels(third) == ["digit-0"]
    assert isinstance(second, UnknownTask)
    assert isinstance(fourth, UnknownTask)


def test_a_large_query_of_one_task_is_answered_in_parts(served: Served) -> None:
    (reply,) = _replies(served, [InferenceRequest(images(2, 3, 2, 3, 2), task="mid", contenders=3)], 2)
    assert labels(reply) == [f"digit-{digit}" for digit in (2, 3, 2, 3, 2)]
    assert served.memory.asked == [(2, "mid", 3), (2, "mid", 3), (1, "mid", 3)]


@pytest.fixture
def grown(vault: Vault) -> Vault:
    """A vault with a model of three tasks."""
    create(vault, "lazy", recipe=2)
    for task, digits in MORE.items():
        assert learn(vault, task, digits, "lazy").state == "succeeded"
    return vault


def test_the_next_version_is_loaded_by_its_new_blobs_alone(grown: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    model, commits = grown.models.get("lazy"), grown.log.list("lazy")
    read: list[str] = []
    get = grown.objects.get_blob

    def note(sha: str) -> bytes:
        read.append(sha)
        return get(sha)

    monkeypatch.setattr(grown.objects, "get_blob", note)
    before = load(grown, model, commits[2])
    assert sorted(read) == sorted([*commits[2].engrams, commits[2].recogniser or ""])
    read.clear()
    after = load(grown, model, commits[3], before)
    assert read == [commits[3].engrams[-1], commits[3].recogniser]
    old, new = before.memory.method, after.memory.method
    assert isinstance(old, lazy.NearestMean)
    assert isinstance(new, lazy.NearestMean)
    assert new.loaded == ("low", "mid", "high"), "all are built before the first request"
    assert all(new._mean(task) is old._mean(task) for task in ("low", "mid"))
