"""Rendering of heatmaps as PNG images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain import png

SHORTEST_SIDE = 224
"""Small images are enlarged to at least so many pixels, or nothing could be seen."""


def diverging(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Red, green and blue for values (H, W) in [-1, 1]: blue through white to red; (H, W) each, all in [0, 1]."""
    strength = values.abs()
    fade, dark = 1 - strength, 1 - 0.3 * (strength - 0.5).clamp_min_(0)
    above = values >= 0
    return torch.where(above, dark, fade), fade, torch.where(above, fade, dark)


def picture(image: Tensor, relevance: Tensor, *, overlay: bool) -> bytes:
    """A PNG of relevance (H, W), alone or over the image (C, H, W) uint8 that it belongs to."""
    return png.encoded(drawn(image, relevance, overlay=overlay).numpy())


def drawn(image: Tensor, relevance: Tensor, *, overlay: bool) -> Tensor:
    """The pixels (H', W', 3) uint8 of `picture`.

    The scale is the 99.5th percentile of the magnitude, so that single pixels do not decide how the rest looks.
    """
    height, width = relevance.shape
    factor = max(1, -(-SHORTEST_SIDE // min(height, width)))
    size = (height * factor, width * factor)
    top = torch.quantile(relevance.abs().flatten().float(), 0.995).clamp_min(1e-12)
    values = _enlarged((relevance.float() / top).clamp_(-1, 1), size).clamp_(-1, 1)  # (H', W')
    colours: Sequence[Tensor] = diverging(values)
    if overlay:
        grey = _enlarged(image.float().mean(0) / 255, size).clamp_(0, 1)  # (H', W')
        weight = values.abs_().sqrt_().mul_(0.85)
        dimmed = grey.mul_(0.55).add_(0.15).mul_(1 - weight)
        colours = [(colour * weight).add_(dimmed) for colour in colours]
    pixels = torch.empty(*size, 3, dtype=torch.uint8)
    for channel, colour in enumerate(colours):
        pixels[:, :, channel] = (colour.clamp(0, 1) * 255).round_()
    return pixels


def _enlarged(values: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) -> (H', W'), by cubic splines."""
    return F.interpolate(values[None, None], size=size, mode="bicubic", align_corners=False)[0, 0]
