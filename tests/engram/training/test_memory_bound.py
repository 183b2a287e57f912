"""Tests of the memory that learning takes: no batch of large images is larger than fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engram import Definition, Examples, LearnOptions, Memory
from engram.nn import batches
from engram.nn.blocks import ConvBlock
from engram.nn.commons import Commons

SIDE, BUDGET = 48, 600_000


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The most bytes that the maps of any convolution, and the images for the commons, had in any batch."""
    most = {"evaluated": 0, "trained": 0, "commons": 0}

    def note(module: nn.Module, given: tuple[Any, ...], found: Any) -> None:
        if isinstance(module, ConvBlock):
            which = "trained" if module.training else "evaluated"
            most[which] = max(most[which], 4 * found.numel())
        elif isinstance(module, Commons):
            most["commons"] = max(most["commons"], 4 * given[0].numel())

    monkeypatch.setattr(batches, "MOST_BYTES", BUDGET)
    with nn.modules.module.register_module_forward_hook(note):
        yield most


def examples(seed: int) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(80) % 2
    images = torch.randint(0, 100, (80, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    images[labels == 1, seed] += 100
    return Examples(images, labels, (f"a{seed}", f"b{seed}"))


def definition(recipe: int) -> Definition:
    shape, commons = {"channels": 3, "height": SIDE, "width": SIDE}, {"features": 64}
    fields = {"input": shape, "backbone": "cnn", "width": 0.5, "recipe": recipe, "commons": commons}
    return Definition.model_validate(fields)


@pytest.mark.parametrize(
    ("recipe", "score"), [pytest.param(3, "taylor", marks=pytest.mark.slow), (3, "lrp"), (2, "taylor")]
)
def test_batches_of_large_images_are_bounded_in_bytes(seen: dict[str, int], recipe: int, score: str) -> None:
    memory = Memory.create(definition(recipe))
    options = LearnOptions.model_validate({"epochs": 1, "rounds": 1, "score": score, "tolerance": 0.2})
    for task in range(2):
        memory.learn(f"task {task}", examples(task), options)
    # Of one image: 8 channels x 48 x 48 x 4 bytes.
    assert 8 * SIDE * SIDE * 4 < seen["evaluated"] <= BUDGET
    # The commons compute their own maps for at most 16 images, and take no fewer.
    assert 0 < seen["commons"] <= max(BUDGET, 16 * 3 * SIDE * SIDE * 4)


def test_what_is_told_does_not_depend_on_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    told, asked = [], examples(0).images[:5]
    for budget in (BUDGET, 2**30):
        monkeypatch.setattr(batches, "MOST_BYTES", budget)
        memory = Memory.create(definition(3))
        memory.learn("task", examples(0), LearnOptions(epochs=1, rounds=1, tolerance=0.2))
        told.append(_probabilities(memory, asked))
    assert torch.allclose(told[0], told[1], atol=1e-4)


def _probabilities(memory: Memory, images: Tensor) -> Tensor:
    return torch.tensor([one.probability for one in memory.predict(images, "task")])
