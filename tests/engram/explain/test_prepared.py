"""Tests that what is prepared explains to the last bit as what is made anew for each heatmap."""

from __future__ import annotations

import copy
import itertools
import random
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from engram import CommonsDefinition, Definition, InputShape
from engram.explain.commons import CommonsRelevance
from engram.explain.explainer import Explainer, Heatmap, TaskExplainers
from engram.explain.rules import COMPOSITES
from engram.methods.eidetic.method import Eidetic
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.backbones import layout_of
from engram.nn.commons import commons_of
from engram.nn.network import Engram
from testing.data.patterns import SIZE, definition, learned, network_of
from tests.engram.explain.reference import conserved, plain_relevance, to_pixels, to_pixels_by_products
from tests.engram.nn.reading import random_engram, random_network


def images(channels: int = 1, side: int = SIZE) -> Tensor:
    """Noise, noise of which half is black, and nothing at all."""
    drawn = torch.randint(0, 256, (3, channels, side, side), generator=torch.Generator().manual_seed(3))
    drawn[1, :, : side // 2] = 0
    drawn[2] = 0
    return drawn.to(torch.uint8)


def same(found: Heatmap, relevance: Tensor, logit: float) -> bool:
    """Whether all is the same to the last bit, the signs of zeros included."""
    return found.relevance.numpy().tobytes() == relevance.numpy().tobytes() and found.logit == logit


def reading_all(backbone: str, channels: int, owners: int = 3) -> tuple[Engram, ...]:
    """Random engrams, each of which reads everything before it."""
    layout = layout_of(definition(backbone, channels))
    stack: list[Engram] = []
    for number in range(owners):
        earlier = {layer: sum(engram.units[layer] for engram in stack) for layer in layout.layers}
        units = {layer: max(1, width - number) for layer, width in layout.widths.items()}
        engram = Engram(layout, f"task {number}", ("a", "b", "c"), earlier, units)
        donor = random_engram(layout, f"task {number}", (), engram.reach)
        state = {name: value for name, value in donor.state_dict().items() if "norm" in name}
        own = engram.state_dict()
        engram.load_state_dict(
            {**own, **{name: value[: len(own[name])] if value.ndim else value for name, value in state.items()}}
        )
        stack.append(engram.freeze())
    return tuple(stack)


@cache
def stacks(backbone: str) -> list[tuple[Engram, ...]]:
    channels = 3 if backbone == "resnet18" else 1
    owners = 2 if backbone == "resnet50" else 4
    return [
        random_network(backbone, owners, seed=1, channels=channels).stack,
        reading_all(backbone, channels, owners - 1),
    ]


@pytest.mark.parametrize(
    ("backbone", "composite"),
    [
        *itertools.product(("mlp", "cnn", "resnet18"), COMPOSITES),
        ("resnet50", COMPOSITES[0]),
        *(pytest.param("resnet50", one, marks=pytest.mark.slow) for one in COMPOSITES[1:]),
    ],
)
def test_a_heatmap_is_the_same_bytes_as_one_made_anew(backbone: str, composite: str) -> None:
    for stack in stacks(backbone):
        explainer = Explainer(stack)
        for number, image in enumerate(images(stack[0].layout.channels)):
            owner = 0 if number == 1 else len(stack) - 1
            expected = plain_relevance(stack, None, image, owner, number, composite)
            assert same(explainer.explain(image, owner, number, composite), *expected)


def test_other_heatmaps_before_and_beside_it_change_nothing() -> None:
    """Composites take turns, more of them than are kept, in several threads."""
    stack = random_network("cnn", owners=3, seed=2).stack
    explainer, image = Explainer(stack), images()[0]
    asked = [(owner, target, composite) for composite in COMPOSITES for owner in range(3) for target in range(2)]
    expected = {one: plain_relevance(stack, None, image, *one) for one in asked}
    shuffled = random.Random(0).sample(asked * 3, 3 * len(asked))
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda one: explainer.explain(image, *one), shuffled)
        assert all(same(heatmap, *expected[one]) for heatmap, one in zip(found, shuffled, strict=True))


BANKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mirrored": {"mirror": True},
    "strided": {"stride": 2, "patch": 4},
    "smooth": {"kind": "smooth"},
    "finer": {"grid": 3},
}


KINDS = [("plain", 2), ("smooth", 2), *((name, 3) for name in BANKS)]
LARGE = [("plain", 2), ("mirrored", 3)]
"""Kinds of which the ordinary run has large images, too, which are made smaller first."""


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(
    ("name", "recipe", "channels", "side"),
    [
        *((*kind, channels, 12) for kind in KINDS for channels in (1, 3)),
        *((*kind, 3, 131) for kind in LARGE),
        *(pytest.param(*kind, 3, 131, marks=pytest.mark.slow) for kind in KINDS if kind not in LARGE),
    ],
)
def test_what_commons_tell_is_the_same_bytes(name: str, recipe: int, channels: int, side: int, flat: bool) -> None:
    about = CommonsDefinition.model_validate({"features": 288, "patch": 5, **BANKS[name]})
    shape = InputShape(channels=channels, height=side, width=side + 1 if name != "mirrored" else 12 * (side // 12))
    made = commons_of(Definition(backbone="mlp", input=shape, commons=about, recipe=recipe, width=0.1))
    some = torch.randint(0, 256, (64, channels, shape.height, shape.width), dtype=torch.uint8)
    commons = made.fitted(some).eval()
    prepared = CommonsRelevance(commons)
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(commons.features, generator=generator), torch.tensor(0.3)
    for image in torch.stack([some[0], some[1] // 4, torch.zeros_like(some[0])]):
        given = image[None] / 255.0
        relevance, logit = prepared.conserved(given, weight, bias, flat=flat)
        expected = conserved(commons, given, weight, bias, flat=flat)
        assert relevance.numpy().tobytes() == expected.numpy().tobytes()
        assert logit == float(commons(given)[0] @ weight + bias)


@pytest.mark.parametrize(("recipe", "reads"), [(1, None), (2, None), (3, "all"), (3, "selected"), (3, "commons")])
@pytest.mark.parametrize("backbone", ["mlp", "cnn"])
def test_a_learned_model_explains_as_one_that_prepares_nothing(backbone: str, recipe: int, reads: str | None) -> None:
    settings = {} if reads is None else {"reads": reads}
    memory = learned(backbone, tasks=3, recipe=recipe, settings=settings, budget=4.0)
    assert isinstance(memory.method, Eidetic | StagedEidetic)
    stack, commons = network_of(memory).stack, memory.method.commons
    for owner, engram in enumerate(stack):
        for composite in ("epsilon_plus", "epsilon_plus_flat", "excitation_backprop"):
            for image in images():
                found = memory.explain(image, task=engram.task, target=engram.classes[1], composite=composite)
                assert same(found, *plain_relevance(stack, commons, image, owner, 1, composite))


@pytest.mark.parametrize(("channels", "stride"), [(1, 1), (3, 1), (3, 2)])
def test_products_give_pixels_what_convolutions_do(channels: int, stride: int) -> None:
    draw = torch.Generator().manual_seed(channels)
    filters = torch.randn(7, channels, 5, 5, generator=draw)
    seen = torch.rand(1, channels, 13, 13, generator=draw)
    places = (13 - 5) // stride + 1
    placed = torch.randn(1, 14, places, places, generator=draw)
    expected = to_pixels(filters, placed, seen, stride, flat=False)
    assert torch.allclose(to_pixels_by_products(filters, placed, seen, stride, flat=False), expected, atol=1e-4)
    assert float(expected.abs().max()) > 0.1


def test_explainers_of_tasks_can_be_copied() -> None:
    stack = stacks("mlp")[0]
    explainers = TaskExplainers(lambda owner: stack[owner])
    before = explainers.explain(images()[0], 0, 1, "epsilon_plus")
    after = copy.deepcopy(explainers).explain(images()[0], 0, 1, "epsilon_plus")
    assert same(after, before.relevance, before.logit)
