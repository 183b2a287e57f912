"""Images to learn filters from where there are none: leaves that have fallen on each other.

Ellipses that hide one another, their sizes after a power law, have the edges, the flat places and the spectrum of
photographs (Lee, Mumford and Huang 2001), and show nothing of anybody's.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SEED = 20010401
"""The same images for every model."""

IMAGES = 1024

AT_ONCE = 256

DRAWN = 32
"""Images that are drawn on at a time: they stay in the processor's cache."""

LEAVES = 40
"""On each image."""

SMALLEST, LARGEST = 2.0, 24.0
"""Radii in pixels."""

SIDE = 32

CHROMA = 0.25
"""How far channels go apart, as a share of how far leaves differ in brightness."""


@cache
def dead_leaves(channels: int) -> Tensor:
    """(N, channels, 32, 32) uint8, not to be written to."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.cat([_fallen(AT_ONCE, channels, generator) for _ in range(IMAGES // AT_ONCE)])


def _fallen(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """Some of them, drawn at twice their size and averaged down, as a lens would."""
    images = _colours(count, channels, generator).repeat(1, 1, 2 * SIDE, 2 * SIDE)
    leaves = [_leaf(count, channels, generator) for _ in range(LEAVES)]
    for first in range(0, count, DRAWN):
        part = slice(first, first + DRAWN)
        for leaf in leaves:
            _cover(images[part], *(one[part] for one in leaf))
    images = F.avg_pool2d(images, 2) + 0.01 * torch.randn(count, channels, SIDE, SIDE, generator=generator)
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def _leaf(count: int, channels: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """One leaf on each image: what `_cover` takes."""
    lines = torch.arange(2 * SIDE) / 2.0
    drawn = torch.rand(count, 5, 1, 1, generator=generator)
    # Radii have a density that falls with their cube, so that every scale covers as much.
    radius = (SMALLEST**-2 - drawn[:, 0] * (SMALLEST**-2 - LARGEST**-2)) ** -0.5  # (count, 1, 1)
    down = lines[None, :, None] - (drawn[:, 1] * (SIDE + 2 * radius) - radius)  # (count, side, 1)
    across = lines[None, None, :] - (drawn[:, 2] * (SIDE + 2 * radius) - radius)  # (count, 1, side)
    turn, flat = torch.pi * drawn[:, 3], 1 + 3 * drawn[:, 4] ** 2
    sides = down * turn.cos(), across * turn.sin(), across * turn.cos(), down * turn.sin()
    shade = 0.05 * torch.randn(count, 1, 1, 1, generator=generator)
    return *sides, radius, flat, shade, _colours(count, channels, generator)


def _cover(
    images: Tensor,
    down: Tensor,
    across: Tensor,
    turned_across: Tensor,
    turned_down: Tensor,
    radius: Tensor,
    flat: Tensor,
    shade: Tensor,
    colours: Tensor,
) -> None:
    """Draw a leaf on each of some images (n, channels, side, side), in place."""
    along = (down + across).div_(radius)  # (n, side, side)
    beside = (turned_across - turned_down).div_(radius).mul_(flat)
    leaf = (shade * along[:, None]) + colours
    torch.where((along.square_().add_(beside.square_()) < 1)[:, None], leaf, images, out=images)


def _colours(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """(count, channels, 1, 1)."""
    bright = torch.rand(count, 1, 1, 1, generator=generator)
    return bright + CHROMA * (torch.rand(count, channels, 1, 1, generator=generator) - 0.5)
