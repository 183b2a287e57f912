"""Tests that every method learns a small class beside a large one, and reports both."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from engram import Examples, LearnOptions, Memory
from engram.config.methods import SETTINGS
from engram.errors import RecallTooLow, RecallUnmeasurable
from engram.memory import dump, restore
from testing.data.patterns import QUICK, bars, definition

METHODS = tuple(SETTINGS)
SMALL = {"rerelrp": {"trees": 8, "exemplars": 24}}
OPTIONS = QUICK.model_copy(update={"epochs": 6})


def uneven(large: int = 150, small: int = 6) -> Examples:
    """The two bars of a task, one of them rare."""
    whole = bars(1, count=large)
    chosen = torch.cat([(whole.labels == 0).nonzero().flatten(), (whole.labels == 1).nonzero().flatten()[:small]])
    return whole.subset(chosen)


def empty(method: str, recipe: int = 2, backbone: str = "cnn") -> Memory:
    retention = "features" if method == "sharc" else "none"
    settings = SMALL.get(method, {})
    about: dict[str, Any] = {
        "method": method,
        "settings": settings,
        "budget": 3.0,
        "retention": retention,
    }
    return Memory.create(definition(backbone, recipe=recipe, **about))


def recalls(memory: Memory) -> list[float]:
    new = bars(1, count=100)
    fresh = new.images.flip(0)[: len(new) // 2], new.labels.flip(0)[: len(new) // 2]
    answers = [answer.label for answer in memory.predict(fresh[0])]
    right = torch.tensor([new.classes.index(label) for label in answers]) == fresh[1]
    return [float(right[fresh[1] == label].double().mean()) for label in (0, 1)]


@pytest.mark.parametrize("method", METHODS)
def test_both_classes_are_learned_and_reported(method: str) -> None:
    memory = empty(method)
    report = memory.learn("parts", uneven(), OPTIONS)
    large, small = recalls(memory)
    assert large >= 0.9
    assert small >= 0.7
    assert {name: row["held_out"] for name, row in report.per_class.items()} == {
        "task 1 class 0": 15,
        "task 1 class 1": 1,
    }
    shares = [float(str(row["recall"])) for row in report.per_class.values()]
    assert report.balanced_accuracy == pytest.approx(sum(shares) / 2)
    assert any(
        "2 classes rests on fewer than 20 held-out images each, of 'task 1 class 1' on 1" in warning
        for warning in report.warnings
    )
    assert report.accuracy["kept"] == pytest.approx((15 * shares[0] + shares[1]) / 16)


@pytest.mark.parametrize("method", METHODS)
def test_what_decides_is_stored(method: str) -> None:
    memory = empty(method)
    memory.learn("parts", uneven(), QUICK)
    parts = dump(memory)
    again = restore(parts.definition, parts.engrams, parts.recogniser, None, parts.budget)
    images = bars(1).images
    assert again.observe(images).balances is not None
    assert again.predict(images, top_k=2) == memory.predict(images, top_k=2)


@pytest.mark.parametrize(("recipe", "examples"), [(1, uneven(48, 8)), (2, bars(1))])
def test_the_first_recipe_and_balanced_tasks_have_nothing_to_make_up_for(recipe: int, examples: Examples) -> None:
    memory = empty("eidetic", recipe)
    memory.learn("parts", examples, QUICK)
    assert memory.observe(bars(1).images).balances is None


def test_balanced_tasks_are_learned_alike_by_both_recipes() -> None:
    learned = []
    for recipe in (1, 2):
        memory = empty("eidetic", recipe)
        memory.learn("parts", bars(1), QUICK)
        learned.append(memory.observe(bars(1).images).logits("parts"))
    assert torch.equal(*learned)


def test_the_worst_class_can_be_asked_for() -> None:
    mixed = bars(1, count=240)
    mixed.labels[mixed.labels == 1] = torch.randint(0, 2, (240,), generator=torch.Generator().manual_seed(0))
    memory = empty("eidetic")
    before = dump(memory)
    with pytest.raises(RecallUnmeasurable, match="needs 20 held-out images"):
        memory.learn("parts", uneven(), LearnOptions(min_recall=0.5))
    shuffled = Examples(mixed.images, mixed.labels, mixed.classes)
    with pytest.raises(RecallTooLow, match="asked for of every class"):
        memory.learn("parts", shuffled, QUICK.model_copy(update={"min_recall": 0.99, "held_out": 0.3}))
    assert dump(memory) == before
