"""Edges of staged models: equal tasks, blank images, shared labels, settings that mean nothing."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from engram import Examples, Memory
from testing.data.patterns import QUICK, bars, definition
from tests.engram.methods.staged.test_laws import defined, everything, learned, single


def settings(**given: object) -> Memory:
    return Memory.create(definition("mlp", 1, recipe=3, settings=given))


def test_all_may_contend_by_the_models_setting() -> None:
    memory = settings(contenders="all", reads="commons")
    for task in range(3):
        memory.learn(f"task {task}", bars(task), QUICK)
    assert {one.ran for one in memory.predict(everything())} == {("task 0", "task 1", "task 2")}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"recognise_by": ["ridge"]}, "recognise_by"),
        ({"reads": "all", "labels": "joined"}, "labels"),
        ({"reads": "all", "contenders": "all"}, "contenders"),
        ({"reads": "all", "negatives": 2}, "negatives"),
        ({"contenders": "some"}, "contenders"),
        ({"contenders": 0}, "contenders"),
    ],
)
def test_settings_that_would_mean_nothing_are_refused_by_name(given: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        settings(**given)


def test_of_equal_tasks_the_same_one_answers_whatever_top_k_and_is_asked_if_it_knows() -> None:
    """The same upload under several names: an ordinary mistake."""
    memory = settings(labels="apart", reads="commons")
    for number in range(4):
        memory.learn(f"t{number}", bars(0), QUICK)
    strange = torch.randint(0, 256, (12, *everything().shape[1:]), dtype=torch.uint8)
    for images in (bars(0).images[:12], strange):
        few, many = (memory.predict(images, top_k=count, contenders=1) for count in (1, 8))
        assert [one.task for one in few] == [one.task for one in many]
        assert [one.known for one in few] == [one.known for one in many]
        assert all(one.known is False for one in many if images is strange)


@pytest.mark.parametrize("shade", [0, 128, 255])
@pytest.mark.parametrize("order", [("blank", "bars"), ("bars", "blank")])
def test_images_of_one_colour_can_be_learned_in_any_place(shade: int, order: tuple[str, str]) -> None:
    memory = settings()
    images = torch.full_like(bars(0).images, shade)
    for name in order:
        memory.learn(name, bars(0) if name == "bars" else Examples(images, bars(0).labels, ("a", "b")), QUICK)
    answers = memory.predict(everything(), top_k=4)
    assert all(sum(candidate.probability for candidate in one.top) == pytest.approx(1, abs=1e-4) for one in answers)
    assert {one.task for one in memory.predict(images[:4])} == {"blank"}


def test_a_task_without_a_network_runs_none_and_says_so() -> None:
    memory = Memory.create(defined("commons"))
    memory.learn("two", bars(1), QUICK)
    memory.learn("one", single(0, 0), QUICK)
    images = single(0, 0).images[:6]
    for one in (*memory.predict(images, "one"), *memory.predict(images, contenders="all")):
        assert "one" not in one.ran
        assert one.task == "one"
        assert one.top[0].evidence == "ridge"


def test_more_images_of_known_classes_are_answered_right_by_their_names() -> None:
    memory = Memory.create(defined("commons"))
    memory.learn("first", bars(0), QUICK)
    report = memory.learn("second", bars(0), QUICK)
    assert report.answered == 1.0
    assert report.recognised == 1.0


def test_the_nearest_tasks_say_how_unusual_an_image_is_that_they_know() -> None:
    memory = learned("commons", (0, 1, 2))
    for one in memory.predict(torch.cat([everything(), 255 - everything()])):
        assert 0 <= one.novelty <= 1
        if one.known:
            assert one.novelty < 0.99
