"""Rendering of heatmaps as PNG images."""

from __future__ import annotations

import torch
from torch import Tensor

from engram.explain import png
from engram.explain.enlargement import enlarged

SHORTEST_SIDE = 224
"""Small images are enlarged to at least so many pixels, or nothing could be seen."""


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
    values = enlarged((relevance.float() / top).clamp_(-1, 1), size).clamp_(-1, 1)  # (H', W')
    speaks_for, strength = values >= 0, values.abs_()
    fading = 1 - strength
    darkening = 1 - 0.3 * (strength - 0.5).clamp_min_(0)
    if overlay:
        grey = enlarged(image.float().mean(0) / 255, size).clamp_(0, 1)  # (H', W')
        weight = strength.sqrt_().mul_(0.85)
        dimmed = grey.mul_(0.55).add_(0.15).mul_(1 - weight)
        fading, darkening = (colour.mul_(weight).add_(dimmed) for colour in (fading, darkening))
    fade, dark = ((colour.clamp_(0, 1) * 255).round_().to(torch.uint8) for colour in (fading, darkening))
    # From blue through white to red.
    return torch.stack([torch.where(speaks_for, dark, fade), fade, torch.where(speaks_for, fade, dark)], 2)
