"""Tests of which logit is explained, and that no more is run for it than it takes to tell."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from engram import Examples, Memory
from engram.errors import EngramError, UnknownLabel, UnknownTask
from engram.explain import png
from engram.explain.render import drawn
from testing.data.patterns import QUICK, bars, learned


@pytest.fixture(scope="module", params=[2, 3])
def memory(request: pytest.FixtureRequest) -> Memory:
    """Three tasks, of which the last shares a label with the first."""
    memory = learned("mlp", tasks=2, recipe=request.param)
    third = bars(2)
    memory.learn("task 2", Examples(third.images, third.labels, ("task 0 class 1", "task 2 class 1")), QUICK)
    return memory


LABELS = (None, "task 0 class 0", "task 0 class 1", "task 1 class 0", "task 2 class 1", "nothing")
TASKS = (None, "task 0", "task 1", "task 2", "nothing")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("target", LABELS)
def test_it_is_what_a_whole_observation_would_say(memory: Memory, target: str | None, task: str | None) -> None:
    def whole(image: Tensor) -> tuple[int, int]:
        return memory.observe(image[None]).explained(target, task)

    def short(image: Tensor) -> tuple[int, int]:
        return memory.method.explained(image, target, task)

    def outcome(ask: Callable[[Tensor], object], image: Tensor) -> object:
        try:
            return ask(image)
        except EngramError as error:
            return type(error)

    for image in torch.cat([bars(number).images[:2] for number in range(3)]):
        expected = outcome(whole, image)
        assert outcome(short, image) == expected
        if target == "nothing":
            assert expected in (UnknownLabel, UnknownTask)


def test_what_is_named_is_explained_without_asking_any_task(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    image, expected = bars(0).images[0], memory.explain(bars(0).images[0], target="task 0 class 1", task="task 0")

    def observe(*_: object) -> None:
        raise AssertionError("no task has to be asked")

    monkeypatch.setattr(type(memory.method), "observe_for", observe)
    found = memory.explain(image, target="task 0 class 1", task="task 0")
    assert torch.equal(found.relevance, expected.relevance)
    assert memory.explain(image, target="task 1 class 0").task == "task 1"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (8, 20), (28, 28), (300, 250)])
@pytest.mark.parametrize("overlay", [True, False])
def test_a_picture_holds_the_pixels_that_were_drawn(height: int, width: int, overlay: bool) -> None:
    generator = torch.Generator().manual_seed(height)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    relevance = torch.randn(height, width, generator=generator)
    pixels = drawn(image, relevance, overlay=overlay).numpy()
    with Image.open(io.BytesIO(png.encoded(pixels))) as picture:
        picture.verify()
    with Image.open(io.BytesIO(png.encoded(pixels))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(picture), pixels)
