"""Tests of the commons, the heads that read them, and relevance through them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engram import CommonsDefinition, Memory
from engram.explain.commons import CommonsRelevance
from engram.methods.eidetic.commons_head import fitted
from engram.nn.commons.filters import learned_filters
from engram.nn.commons.float_commons import FloatCommons
from engram.recognition.ridge import GramStatistics
from testing.data.patterns import QUICK, bars, definition, network_of


def commons(kind: str, channels: int = 1, side: int = 12) -> FloatCommons:
    base = definition("mlp", channels, commons=CommonsDefinition(features=128, patch=5, kind=kind))
    shape = base.input.model_copy(update={"height": side, "width": side})
    made = FloatCommons(base.model_copy(update={"input": shape}))
    generator = torch.Generator().manual_seed(side)
    images = torch.randint(0, 256, (40, 3 if channels > 1 else 1, side, side), generator=generator, dtype=torch.uint8)
    return made.fitted(images)


def plain(made: FloatCommons, image: Tensor) -> list[float]:
    """The features of one image (C, H, W), value by value."""
    _, height, width = image.shape
    features = []
    for sign in (1.0, -1.0):
        for weight, offset in zip(made.filters.weight.double(), made.offsets.double(), strict=True):  # type: ignore[arg-type]
            rows = []
            for top in range(height - made.patch + 1):
                row = []
                for left in range(width - made.patch + 1):
                    patch = image[:, top : top + made.patch, left : left + made.patch].double()
                    spread = ((patch - patch.mean()) ** 2).sum()
                    response = (patch * weight).sum() / math.sqrt(spread + made.contrast_floor) + offset
                    row.append(max(0.0, sign * float(response) - made.threshold))
                rows.append(row)
            grid = np.array(rows)
            for top in range(made.grid):
                for left in range(made.grid):
                    first, last = top * len(grid) // made.grid, -(-(top + 1) * len(grid) // made.grid)
                    begin, end = left * len(grid[0]) // made.grid, -(-(left + 1) * len(grid[0]) // made.grid)
                    mean = grid[first:last, begin:end].mean()
                    features.append(math.sqrt(mean) if made.kind == "smooth" else mean)
    return features


@pytest.mark.parametrize("kind", ["smooth", "learned"])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_those_of_plain_arithmetic(kind: str, channels: int) -> None:
    made = commons(kind, channels)
    image = bars(0, channels=channels).images[0].float() / 255
    np.testing.assert_allclose(made(image[None])[0].numpy(), plain(made, image), atol=2e-5)


def test_learned_filters_find_the_directions_that_there_are() -> None:
    generator = torch.Generator().manual_seed(0)
    stripes = torch.zeros(64, 1, 12, 12)
    stripes[:32, :, :, ::4], stripes[32:, :, ::4, :] = 1.0, 1.0
    noisy = (stripes + 0.02 * torch.randn(stripes.shape, generator=generator)).clamp(0, 1)
    filters, offsets = learned_filters(noisy, 8, 4, 0.16, generator)
    assert filters.mean((1, 2, 3)).abs().max() < 1e-4
    assert torch.isfinite(offsets).all()
    rows, columns = filters.mean(3), filters.mean(2)  # a filter for columns varies along columns only
    upright = columns.var(2) > 10 * rows.var(2)
    lying = rows.var(2) > 10 * columns.var(2)
    assert upright.any()
    assert lying.any()


def test_flat_images_still_give_filters() -> None:
    filters, offsets = learned_filters(torch.full((5, 1, 12, 12), 0.5), 8, 5, 0.25, torch.Generator().manual_seed(0))
    assert torch.isfinite(filters).all()
    assert torch.isfinite(offsets).all()


def test_learned_commons_come_with_the_first_task_and_stay() -> None:
    memory = Memory.create(definition("mlp", 1, commons=CommonsDefinition(features=128, patch=5, kind="learned")))
    blank = memory.method.dump().engrams[0]
    memory.learn("task 0", bars(0), QUICK)
    first = memory.method.dump().engrams[0]
    memory.learn("task 1", bars(1), QUICK)
    assert blank != first
    assert memory.method.dump().engrams[0] == first


def test_the_kind_follows_the_channels_unless_it_is_said() -> None:
    grey, colour = definition("mlp", 1).input, definition("mlp", 3).input
    assert CommonsDefinition().resolved(grey).kind == "smooth"
    assert CommonsDefinition().resolved(colour).kind == "learned"
    assert CommonsDefinition(kind="smooth").resolved(colour).patch == 8


def test_a_head_weighs_the_commons_by_what_they_are_worth() -> None:
    generator = torch.Generator().manual_seed(3)
    features, labels = torch.randn(300, 6, generator=generator), torch.arange(300) % 2
    features[:, 0] += 3 * labels
    sums = GramStatistics.empty(6, 2).plus(features[:200], labels[:200]).packed()
    useless = torch.randn(100, 2, generator=generator)
    factor, head = fitted([sums], useless, [features[200:]], labels[200:])
    both = factor * useless + head(features[200:])
    assert float((both.argmax(1) == labels[200:]).double().mean()) > 0.9
    telling = torch.nn.functional.one_hot(labels[200:], 2) * 8.0
    kept, ignored = fitted([sums], telling, [torch.randn(100, 6, generator=generator)], labels[200:])
    assert kept > factor
    assert ignored.weight.abs().max() < head.weight.abs().max()


@pytest.mark.parametrize("kind", ["smooth", "learned"])
@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("side", [12, 130])
def test_relevance_through_the_commons_is_conserved(kind: str, flat: bool, side: int) -> None:
    made = commons(kind, 3, side)
    generator = torch.Generator().manual_seed(5)
    image = torch.rand(1, 3, side, side, generator=generator)
    weight, bias = torch.randn(made.features, generator=generator), torch.tensor(0.7)
    relevance, logit = CommonsRelevance(made).conserved(image, weight, bias, flat=flat)
    assert relevance.shape == image.shape[1:]
    assert logit == float(made(image)[0] @ weight + bias)
    assert float(relevance.sum()) == pytest.approx(logit, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("kind", ["smooth", "learned"])
def test_the_gradient_is_that_of_small_steps(kind: str) -> None:
    made = commons(kind).double()
    image = bars(0).images[:1].double() / 255
    weight = torch.randn(made.features, generator=torch.Generator().manual_seed(6)).double()
    carried = CommonsRelevance(made).gradient(image, weight)
    for row, column in [(3, 3), (6, 2), (8, 9)]:
        step = torch.zeros_like(image)
        step[0, 0, row, column] = 1e-6
        slope = float((made(image + step)[0] - made(image - step)[0]) @ weight) / 2e-6
        assert float(carried[0, row, column]) == pytest.approx(slope, rel=1e-2, abs=1e-3)


def test_each_part_can_be_left_out() -> None:
    memory = Memory.create(definition("mlp", settings={"read_commons": False}))
    memory.learn("task 0", bars(0), QUICK)
    assert network_of(memory).stack[0].common is None
