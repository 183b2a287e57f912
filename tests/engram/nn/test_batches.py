"""Tests of computing in parts: how many images fit, and that nothing but memory depends on it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from engram import Definition
from engram.nn import batches
from engram.nn.backbones import layout_of
from engram.nn.batches import SMALL, at_once, fitting, in_parts, map_bytes, pictures_at_once
from engram.nn.layout import Layout
from engram.nn.network import Engram


def layout_for(side: int, backbone: str = "cnn") -> Layout:
    shape = {"channels": 3, "height": side, "width": side}
    return layout_of(Definition.model_validate({"input": shape, "backbone": backbone}))


@pytest.mark.parametrize("bytes_each", [1, 1000, 100_000, 2**20, 3 * 2**20, 2**22, 2**25, 2**26, 2**30])
def test_what_fits_is_a_shape_or_a_multiple_of_the_largest(bytes_each: int) -> None:
    count = fitting(bytes_each)
    assert count in (1, 2, 4, 8) or count % 16 == 0
    assert count == 1 or count * bytes_each <= batches.MOST_BYTES
    assert fitting(bytes_each, least=16) >= 16


@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18", "resnet50"])
def test_the_largest_map_is_that_of_a_network_that_was_run(backbone: str) -> None:
    layout = layout_for(64, backbone)
    engram = Engram(layout, "t", ("a", "b"), dict.fromkeys(layout.layers, 0), dict(layout.widths), ()).eval()
    watch: dict[str, Tensor] = {}
    with torch.no_grad():
        engram(torch.rand(1, 3, 64, 64), {}, watch)
    largest = max(4 * math.prod(values.shape[1:]) for values in watch.values())
    assert map_bytes(layout, engram.reach) == max(largest, 4 * 3 * 64 * 64)


def test_batches_of_small_images_are_as_they_always_were() -> None:
    for side in (28, 32):
        layout = layout_for(side, "resnet50")
        assert at_once(layout, {layer: 100 * units for layer, units in layout.widths.items()}, 512) == 512
    layout = layout_for(224)
    assert at_once(layout, layout.widths, 512) == 16
    assert at_once(layout, layout.widths, 8) == 8
    assert at_once(layout, layout.widths, 512, maps=8) == 2
    assert pictures_at_once(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)) == 96


def test_parts_are_no_larger_than_asked_and_come_together_again() -> None:
    images, seen, asked = torch.arange(20.0).reshape(10, 2), [], []

    def run(part: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(part))
        return part + 1, part.sum(1)

    more, sums = in_parts(images, 4, run, lambda: asked.append(len(seen)))
    assert torch.equal(more, images + 1)
    assert torch.equal(sums, images.sum(1))
    assert seen == [4, 4, 2]
    assert asked == [0, 1, 2], "before each part"
    assert torch.equal(in_parts(images[:0], 4, lambda part: part * 2), images[:0])


@pytest.mark.parametrize("backbone", ["mlp", "cnn", "resnet18"])
@pytest.mark.parametrize("side", [16, 64])
def test_a_network_answers_the_same_whether_its_maps_are_kept_or_not(backbone: str, side: int) -> None:
    layout, generator = layout_for(side, backbone), torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first = Engram(layout, "a", ("a", "b"), dict.fromkeys(layout.layers, 0), dict.fromkeys(layout.layers, 8)).eval()
        other = Engram(layout, "b", ("c", "d"), first.units, dict.fromkeys(layout.layers, 8)).eval()
    images = torch.rand(3, 3, side, side, generator=generator)
    with torch.no_grad():
        joined = first(images, {})
        assert torch.equal(first.answer(images, {}), first.logits(joined))
        assert torch.equal(other.answer(images, joined), other.logits(other(images, joined)))


def test_no_value_is_forgotten_before_it_is_read_or_kept_after() -> None:
    layout = layout_for(64, "resnet18")
    order = {node.name: number for number, node in enumerate(layout.nodes)}
    over = {name: number for number, names in enumerate(layout.over()) for name in names}
    for node in layout.nodes:
        readers = [order[other.name] for other in layout.nodes if node.name in other.sources]
        if node is layout.features:
            assert node.name not in over
        else:
            assert over[node.name] == max(readers)
    assert SMALL == 32 * 32
