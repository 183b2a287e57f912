"""Tests of whether images are known: p-values of all of a task's images, and when nothing is said."""

from __future__ import annotations

import pytest
import torch

from engram import Examples, Memory
from engram.methods.eidetic.method import Eidetic
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.recognition.conformal import level_of
from engram.recognition.recogniser import Recogniser
from engram.recognition.ridge import solve
from engram.recognition.serialization import dump_recogniser, load_recogniser
from testing.data.patterns import QUICK, bars, definition
from tests.engram.recognition.test_leave_one_out import drawn, summed


@pytest.mark.parametrize(
    ("count", "level"), [(0, None), (19, None), (20, 1 / 21), (40, 1 / 41), (99, 0.01), (100, 0.01), (4096, 0.01)]
)
def test_the_level_is_the_rarest_event_that_so_many_scores_can_tell(count: int, level: float | None) -> None:
    assert level_of(count) == pytest.approx(level)


RECIPES = (2, 3)


def learned(count: int, recipe: int) -> tuple[Memory, dict[str, object]]:
    memory = Memory.create(definition(recipe=recipe))
    return memory, memory.learn("t", bars(0, count), QUICK).novelty


def noise() -> torch.Tensor:
    return torch.randint(0, 256, (40, 1, 12, 12), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


@pytest.mark.parametrize("recipe", RECIPES)
def test_nothing_is_said_of_strangers_by_a_task_of_few_images(recipe: int) -> None:
    memory, told = learned(9, recipe)
    assert (told["scores"], told["level"]) == (18, None)
    assert {answer.known for answer in memory.predict(noise())} == {None}


def test_the_first_recipe_always_says_something() -> None:
    again, told = learned(9, recipe=1)
    assert told["level"] == 0.01
    assert all(isinstance(answer.known, bool) for answer in again.predict(noise()))


@pytest.mark.parametrize("recipe", RECIPES)
def test_ten_images_of_each_class_tell_noise_from_the_tasks_own(recipe: int) -> None:
    memory, told = learned(10, recipe)
    assert told["scores"] == 20
    assert told["level"] == pytest.approx(1 / 21)
    assert told["noise_unknown"] == 1.0
    assert not any(answer.known for answer in memory.predict(noise()))
    own = [answer.known for answer in memory.predict(bars(0, 200).images)]
    assert sum(bool(known) for known in own) / len(own) > 0.85


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_task_that_takes_noise_for_its_own_never_says_yes(recipe: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 12, 12), generator=generator, dtype=torch.uint8)
    memory = Memory.create(definition(recipe=recipe))
    report = memory.learn("noise", Examples(images, torch.arange(60) % 2, ("a", "b")), QUICK)
    assert report.novelty["level"] == pytest.approx(1 / 61)
    assert float(str(report.novelty["noise_unknown"])) < 0.5
    assert {answer.known for answer in memory.predict(noise())} <= {None, False}
    assert {answer.known for answer in memory.predict(bars(0, 5).images)} <= {None, False}


@pytest.mark.parametrize("recipe", RECIPES)
def test_new_images_are_called_unusual_about_as_often_as_their_p_values_say(recipe: int) -> None:
    memory, _ = learned(60, recipe)
    values = memory.observe(bars(0, 1000).images[300:1800]).p_values[:, 0]
    for share in (0.05, 0.2, 0.5):
        assert 0.3 * share < float((values <= share).double().mean()) < 1.3 * share + 0.02


def test_a_small_class_counts_as_much_as_a_large_one() -> None:
    every, numbers = drawn(30, (600, 208))
    every += 2 * torch.randn(every.shape, generator=torch.Generator().manual_seed(1))
    learned_from = torch.cat([torch.arange(400), torch.arange(600, 608)])
    sums = [summed(every[learned_from], numbers[learned_from], 2).packed()]

    def recall(label: int, weights: torch.Tensor) -> float:
        fresh = every[400:600] if label == 0 else every[608:]
        return float(((fresh @ weights[:-1] + weights[-1]).argmax(1) == label).double().mean())

    balanced, plain = solve(sums, by_class=True), solve(sums)
    assert recall(1, balanced) > 0.9
    assert recall(1, plain) < recall(1, balanced) - 0.1
    assert recall(0, balanced) > 0.9


def test_classes_of_one_size_are_regressed_as_before() -> None:
    features, labels = drawn(30, (50, 50, 50))
    pieces = [summed(features, labels, 3).packed()]
    torch.testing.assert_close(solve(pieces, by_class=True), solve(pieces), rtol=1e-3, atol=1e-5)


def test_levels_are_stored() -> None:
    memory, _ = learned(10, recipe=2)
    recogniser = memory.method.recogniser  # type: ignore[attr-defined]  # of the default method
    assert isinstance(recogniser, Recogniser)
    again = load_recogniser(dump_recogniser(recogniser))
    assert again.levels == recogniser.levels
    assert again.profiles[0].noise == 1.0


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("odd", [False, True])
def test_images_that_are_all_alike_leave_numbers_behind(odd: bool, recipe: int) -> None:
    images = bars(0, 1).images[torch.arange(400) % 2].clone()
    if odd:
        images[0, 0, 0, 0] = 255
    # More features than directions are kept.
    memory = Memory.create(definition(commons={"features": 256, "patch": 5}, recipe=recipe))
    memory.learn("alike", Examples(images, torch.arange(400) % 2, ("a", "b")), QUICK)
    method = memory.method
    if isinstance(method, StagedEidetic):
        density = method.staged[0].profile.density
    else:
        assert isinstance(method, Eidetic)
        density = method.recogniser.profiles[0].density
    assert bool(density.quantiles.isfinite().all())
    assert any(answer.known for answer in memory.predict(images[2:6]))
    assert not any(answer.known for answer in memory.predict(noise()))
