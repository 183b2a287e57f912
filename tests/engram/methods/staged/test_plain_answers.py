"""Tests of the fast form of staged answers: every field has the bytes of the plain form."""

from __future__ import annotations

from dataclasses import astuple
from functools import cache

import pytest
import torch
from torch import Tensor

from engram import Examples, Memory
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.recognition.staged.observation import StagedObservation
from testing.data.patterns import QUICK, bars, definition
from tests.engram.methods.staged.plain_answers import PlainAnswers, PlainServing
from tests.engram.methods.staged.test_laws import single

SIZES = (1, 2, 5, 16, 19, 40)
FIELDS = tuple(PlainAnswers.__dataclass_fields__)


def several(task: int, classes: int) -> Examples:
    """A task of more classes than there are places for bars."""
    parts = [bars(task + 7 * part, 24) for part in range(-(-classes // 2))]
    images = torch.cat([part.images for part in parts])
    labels = torch.cat([part.labels + 2 * number for number, part in enumerate(parts)])
    return Examples(images, labels, tuple(f"{task}-{label}" for label in range(classes))).subset(
        (labels < classes).nonzero().flatten()
    )


def uneven(task: int) -> Examples:
    """A task of which one class has a fourth of its images."""
    both = bars(task)
    return both.subset(torch.tensor([n for n, label in enumerate(both.labels.tolist()) if label or n % 8 == 0]))


def named(examples: Examples, names: tuple[str, ...]) -> Examples:
    return Examples(examples.images, examples.labels, names)


def equal(*tasks: int) -> list[Examples]:
    return [bars(task) for task in tasks]


TASKS = {
    "one": equal(0),
    "equal sizes": equal(0, 1, 2, 3),
    "all sizes": [bars(0), several(1, 3), single(2, 0), uneven(3), several(4, 5)],
    "shared labels": [bars(0), named(bars(1), ("task 0 class 0", "x")), named(bars(2), ("x", "task 0 class 1"))],
    "the same": equal(0, 0, 0),
}


@cache
def served(backbone: str, tasks: str, labels: str = "joined") -> tuple[Memory, PlainServing, Tensor]:
    memory = Memory.create(definition(backbone, 1, budget=8.0, recipe=3, settings={"labels": labels}))
    for number, examples in enumerate(TASKS[tasks]):
        memory.learn(f"task {number}", examples, QUICK)
    assert isinstance(memory.method, StagedEidetic)
    generator = torch.Generator().manual_seed(1)
    own = torch.cat([examples.images[:12] for examples in TASKS[tasks]])
    noise = torch.randint(0, 256, (16, *own.shape[1:]), generator=generator, dtype=torch.uint8)
    images = torch.cat([own, noise, own[:16] // 2 + noise[: len(own[:16])] // 2, torch.zeros_like(own[:1]), 255 - own])
    images = images[torch.randperm(len(images), generator=generator)]
    return memory, PlainServing(memory.method.serving()), images


CASES = [("mlp", tasks, "joined") for tasks in TASKS]
CASES += [("mlp", "shared labels", "apart"), ("cnn", "all sizes", "joined")]
CASES += [("resnet18", "equal sizes", "joined")]
SLOWLY = [("cnn", tasks, "joined") for tasks in TASKS if tasks != "all sizes"] + [("resnet50", "one", "joined")]
SLOW = [pytest.param(*case, marks=pytest.mark.slow) for case in SLOWLY]


@pytest.mark.parametrize("contenders", [1, 2, "all"])
@pytest.mark.parametrize(("backbone", "tasks", "labels"), [*CASES, *SLOW])
def test_answers_are_those_of_the_plain_form(backbone: str, tasks: str, labels: str, contenders: int | str) -> None:
    memory, plain, images = served(backbone, tasks, labels)
    most = None if isinstance(contenders, str) else contenders
    for size in SIZES:
        for part in torch.split(images, size)[: 1 + 12 // size]:
            seen = memory.observe(part, contenders="all" if most is None else most)
            assert isinstance(seen, StagedObservation)
            expected = plain.answers(part, most)
            for name in FIELDS:
                found, wanted = getattr(seen, name), getattr(expected, name)
                assert found.dtype == wanted.dtype, name
                assert found.numpy().tobytes() == wanted.numpy().tobytes(), name
            for top_k in (1, 3, 99):
                assert [astuple(one) for one in seen.predictions(top_k=top_k)] == plain.predictions(expected, top_k)


def test_the_cases_are_not_all_alike() -> None:
    numbers, known = set[int](), set[bool | None]()
    for tasks in TASKS:
        memory, _, images = served("mlp", tasks)
        seen = memory.observe(images, contenders=2)
        assert isinstance(seen, StagedObservation)
        numbers |= set(seen.contending.sum(1).tolist())
        known |= {one.known for one in seen.predictions()}
    assert numbers >= {1, 2}, "some images have a rival, some have none"
    assert known >= {True, False}


@pytest.mark.parametrize("task", [None, "task 1"])
def test_parts_of_a_batch_have_the_predictions_of_each_by_itself(task: str | None) -> None:
    memory, _, images = served("mlp", "shared labels")
    parts = [(1, 1), (3, 2), (0, 1), (4, 9), (1, 1)]
    seen = memory.observe(images[:9], task)
    found = seen.predictions_each(parts, task)
    start = 0
    for (count, top_k), answers in zip(parts, found, strict=True):
        assert answers == seen[start : start + count].predictions(task, top_k)
        start += count


def test_what_is_observed_can_be_learned_from() -> None:
    """Tensors of inference mode could be neither changed nor part of a gradient."""
    memory, _, images = served("mlp", "equal sizes")
    seen = memory.observe(images[:3])
    assert isinstance(seen, StagedObservation)
    for name in FIELDS:
        assert not getattr(seen, name).is_inference(), name
    assert not seen.logits("task 1").is_inference()
    weight = torch.ones(3, 1, requires_grad=True)
    (seen.decided * weight).sum().backward()  # type: ignore[no-untyped-call]  # missing in torch's stubs
    assert weight.grad is not None
