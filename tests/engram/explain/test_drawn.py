"""Tests of the pictures of heatmaps: as a slow and plain drawing has them, to the byte."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain.enlargement import enlarged
from engram.explain.render import SHORTEST_SIDE, drawn


def splined(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values[None, None], size=size, mode="bicubic", align_corners=False)[0, 0]


def plainly_drawn(image: Tensor, relevance: Tensor, *, overlay: bool) -> Tensor:
    factor = max(1, -(-SHORTEST_SIDE // min(relevance.shape)))
    size = (relevance.shape[0] * factor, relevance.shape[1] * factor)
    top = torch.quantile(relevance.abs().flatten(), 0.995).clamp_min(1e-12)
    values = splined((relevance / top).clamp(-1, 1), size).clamp(-1, 1)
    strength = values.abs()
    fade, dark = 1 - strength, 1 - 0.3 * (strength - 0.5).clamp_min(0)
    colours = [torch.where(values >= 0, dark, fade), fade, torch.where(values >= 0, fade, dark)]
    if overlay:
        grey = splined(image.float().mean(0) / 255, size).clamp(0, 1)
        weight = strength.sqrt() * 0.85
        dimmed = (grey * 0.55 + 0.15) * (1 - weight)
        colours = [colour * weight + dimmed for colour in colours]
    return torch.stack([(colour.clamp(0, 1) * 255).round() for colour in colours], 2).to(torch.uint8)


@pytest.mark.parametrize("overlay", [True, False])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 17, 40), (3, 224, 230)])
def test_pixels_are_those_of_a_plain_drawing(shape: tuple[int, int, int], overlay: bool) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    image = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    for scale in (0.0, 0.01, 3.0):
        relevance = scale * torch.randn(shape[1:], generator=generator)
        expected = plainly_drawn(image, relevance, overlay=overlay)
        assert torch.equal(drawn(image, relevance, overlay=overlay), expected)


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(28, 28, 8), (32, 32, 7), (5, 9, 45), (200, 210, 2), (8, 3, 1)]
)
def test_enlarged_maps_are_those_of_the_library(height: int, width: int, factor: int) -> None:
    generator = torch.Generator().manual_seed(height)
    for _ in range(5):
        values, size = torch.randn(height, width, generator=generator), (height * factor, width * factor)
        assert torch.equal(enlarged(values, size), splined(values, size))


@pytest.mark.parametrize(("value", "colour"), [(-2.0, (0, 0, 217)), (0.0, (255, 255, 255)), (2.0, (217, 0, 0))])
def test_colours_go_from_blue_through_white_to_red(value: float, colour: tuple[int, int, int]) -> None:
    pixels = drawn(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.full((4, 4), value), overlay=False)
    assert (pixels == torch.tensor(colour)).all()
