"""Tests of names that are shown: labels of one name are joined by them, and nothing else is another."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engram.config.definition import Definition
from engram.config.options import LearnOptions
from engram.errors import UnknownTask
from engram.memory import Memory
from engram.recognition.naming import Naming
from engram.recognition.predictions import Observation
from testing.data.digits import QUICK, SMALL_MODEL, pixels
from testing.data.models import examples

LEARNED = {"low": (0, 1), "again": (1, 2)}
"""Both have a class `digit-1`."""
SHOWN = {"low": ("small", ("nil", "one")), "again": ("again", ("uno", "nil"))}
"""Neither has, but both have `nil`."""


@pytest.fixture(scope="module")
def memory() -> Memory:
    found = Memory.create(Definition.model_validate(SMALL_MODEL))
    for task, digits in LEARNED.items():
        found.learn(task, examples(digits), LearnOptions.model_validate(QUICK))
    return found


@pytest.fixture(scope="module")
def naming(memory: Memory) -> Naming:
    return Naming.of(memory.tasks, SHOWN)


def images(count: int = 20) -> Tensor:
    numbers = [(digit, 60 + index) for digit in (0, 1, 2) for index in range(count)]
    return torch.stack([torch.from_numpy(pixels(*number))[None] for number in numbers])


@pytest.fixture(scope="module")
def observed(memory: Memory, naming: Naming) -> tuple[Observation, Observation]:
    """As learned, and as shown; no more than one task is run for an image."""
    joined = Memory(memory.method.joining(naming.shown))
    return memory.observe(images(), contenders=1), naming.named(joined.observe(images(), contenders=1))


def test_the_probability_of_each_class_is_the_same(observed: tuple[Observation, Observation]) -> None:
    before, after = observed
    assert after.probabilities().numpy().tobytes() == before.probabilities().numpy().tobytes()
    for shown, learned in (("small", "low"), ("low", "low"), ("again", "again")):
        assert after.logits(shown).numpy().tobytes() == before.logits(learned).numpy().tobytes()
        assert after.probabilities(shown).numpy().tobytes() == before.probabilities(learned).numpy().tobytes()
        assert [one.label for one in after.predictions(shown)] == [
            SHOWN[learned][1][("digit-0", "digit-1", "digit-2").index(one.label) - (learned == "again")]
            for one in before.predictions(learned)
        ]
    with pytest.raises(UnknownTask):
        after.predictions("other")


def test_classes_of_one_name_are_one_label_by_the_names_that_are_shown(
    observed: tuple[Observation, Observation],
) -> None:
    before, after = observed
    told = before.probabilities()  # (B, 4): digit-0 and digit-1 of low, digit-1 and digit-2 of again
    sums = {"nil": told[:, 0] + told[:, 3], "one": told[:, 1], "uno": told[:, 2]}
    for row, answer in enumerate(after.predictions(top_k=3)):
        found = {one.label: one.probability for one in answer.top}
        assert found == pytest.approx({label: float(values[row]) for label, values in sums.items()})
        by_label = {one.label: one.tasks for one in answer.top}
        assert set(by_label["nil"]) == {"small", "again"}
        assert (by_label["one"], by_label["uno"]) == (("small",), ("again",))
    assert any(set(one.top[0].tasks) == {"low", "again"} for one in before.predictions())


def test_whether_an_image_is_known_is_told_by_the_task_that_answers(observed: tuple[Observation, Observation]) -> None:
    """Also where that task answers only because labels are joined otherwise."""
    before, after = observed
    answers = list(zip(before.predictions(), after.predictions(), strict=True))
    assert all(one.known is not None and other.known is not None for one, other in answers)
    same = [(one, other) for one, other in answers if one.task == other.task.replace("small", "low")]
    assert len(same) > len(answers) // 2
    assert all((one.known, one.novelty) == (other.known, other.novelty) for one, other in same)
    assert {name for _, other in answers for name in other.ran} <= {"small", "again"}


def test_names_of_both_kinds_are_understood(naming: Naming) -> None:
    assert [naming.task(name) for name in ("small", "low", "again")] == ["low", "low", "again"]
    with pytest.raises(UnknownTask):
        naming.task("other")
    assert naming.shown_label("nil") == naming.shown_label("digit-0") == "nil"
    assert naming.shown_label("digit-1") == "digit-1", "which class is meant cannot be told"
    assert naming.shown_label("digit-1", "low") == "one"
    assert naming.learned_class("again", "nil") == ("again", "digit-2")
