"""Tests of first filters from patches: the mark of a small class is found, whatever its place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram import Definition, Examples
from engram.nn.backbones import layout_of
from engram.nn.network import Engram
from engram.training.distinctive_patches import start_from_patches

MARK = torch.tensor([250, 60, 60], dtype=torch.uint8)[:, None, None]


def marked(good: int, defects: int) -> Examples:
    generator = torch.Generator().manual_seed(0)
    noise = 128 + 35 * torch.randn(good + defects, 3, 32, 32, generator=generator)
    images = noise.clamp(0, 255).to(torch.uint8)
    for image in images[good:]:
        top, left = torch.randint(4, 28, (2,), generator=generator).tolist()
        image[:, top : top + 2, left : left + 2] = MARK
    return Examples(images, torch.tensor([0] * good + [1] * defects), ("good", "defect"))


def network(backbone: str) -> Engram:
    layout = layout_of(
        Definition.model_validate({"backbone": backbone, "input": {"channels": 3, "height": 32, "width": 32}})
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Engram(layout, "task", ("good", "defect"), dict.fromkeys(layout.layers, 0), layout.widths)


def first_filters(engram: Engram) -> Tensor:
    weight: Tensor = engram.state_dict()["blocks.conv1.conv.weight"]
    return weight.clone()


def test_some_filters_answer_to_the_mark_and_the_others_stay() -> None:
    engram = network("cnn")
    before = first_filters(engram)
    rows = start_from_patches(engram, marked(200, 10), torch.Generator().manual_seed(0))
    after = first_filters(engram)
    changed = (after != before).flatten(1).any(1)
    assert rows.tolist() == changed.nonzero().flatten().tolist()
    assert 1 <= int(changed.sum()) <= 8
    assert torch.equal(after[~changed], before[~changed])
    new, plain = marked(100, 0), marked(0, 100)
    answers = [F.conv2d((part.images / 255.0), after[changed]).amax((2, 3)) for part in (new, plain)]  # (100, n) each
    assert bool((answers[1].amax(1) > answers[0].amax(1).quantile(0.95)).double().mean() > 0.9)


def test_nothing_is_done_without_a_small_class_or_a_convolution() -> None:
    for backbone, given in (("cnn", marked(10, 10)), ("cnn", marked(10, 6)), ("mlp", marked(200, 10))):
        engram = network(backbone)
        before = {name: part.clone() for name, part in engram.state_dict().items()}
        start_from_patches(engram, given, torch.Generator().manual_seed(0))
        assert all(torch.equal(part, before[name]) for name, part in engram.state_dict().items())


def test_filters_that_are_not_free_stay() -> None:
    engram, free = network("cnn"), torch.zeros(16, dtype=torch.bool)
    free[12:] = True
    before = first_filters(engram)
    start_from_patches(engram, marked(200, 10), torch.Generator().manual_seed(0), free)
    assert torch.equal(first_filters(engram)[:12], before[:12])
    assert not torch.equal(first_filters(engram)[12:], before[12:])
