"""Rendering of heatmaps as PNG images."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SHORTEST_SIDE = 224
"""Small images are enlarged to at least so many pixels, or nothing could be seen."""


def diverging(values: Tensor) -> Tensor:
    """Colours for values in [-1, 1]: blue through white to red. (H, W) -> (H, W, 3), all in [0, 1]."""
    strength = values.abs().clamp(0, 1)
    fade, dark = 1 - strength, 1 - 0.3 * (strength - 0.5).clamp_min(0)
    red = torch.where(values >= 0, dark, fade)
    blue = torch.where(values >= 0, fade, dark)
    return torch.stack([red, fade, blue], dim=-1)


def picture(image: Tensor, relevance: Tensor, *, overlay: bool) -> bytes:
    """A PNG of relevance (H, W), alone or over the image (C, H, W) uint8 that it belongs to.

    The scale is the 99.5th percentile of the magnitude, so that single pixels do not decide how the rest looks.
    """
    height, width = relevance.shape
    factor = max(1, -(-SHORTEST_SIDE // min(height, width)))
    size = (height * factor, width * factor)
    top = torch.quantile(relevance.abs().flatten().float(), 0.995).clamp_min(1e-12)
    values = (relevance.float() / top).clamp(-1, 1)
    values = F.interpolate(values[None, None], size=size, mode="bicubic", align_corners=False)[0, 0].clamp(-1, 1)
    colours = diverging(values)  # (H', W', 3)
    if overlay:
        grey = image.float().mean(0) / 255  # (H, W)
        grey = F.interpolate(grey[None, None], size=size, mode="bicubic", align_corners=False)[0, 0].clamp(0, 1)
        dimmed = 0.15 + 0.55 * grey[..., None]  # (H', W', 1)
        weight = values.abs()[..., None].sqrt() * 0.85
        colours = dimmed * (1 - weight) + colours * weight
    array = (colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array), mode=None).save(stream, format="PNG", optimize=True)
    return stream.getvalue()
