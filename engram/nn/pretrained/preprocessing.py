"""Pixels to a network's input, in one order of operations for learning and serving."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from engram.config.backbones import Preprocessing

__all__ = ["Preprocessing", "prepare"]


def prepare(preprocessing: Preprocessing, images: Tensor) -> Tensor:
    """The input of a network, float32 (B, 3, size, size), for images uint8 (B, C, H, W) of 1 or 3 channels.

    In this order, all in float32: where height or width is another, resized with antialiasing, and clamped to
    0..255; grey repeated over three channels; divided by 255; mean subtracted; divided by the deviation. Code that
    does the same in plain PyTorch has the same bytes.
    """
    size = preprocessing.size
    pixels = images.to(torch.float32)  # (B, C, H, W)
    if tuple(images.shape[2:]) != (size, size):
        mode = preprocessing.interpolation
        pixels = F.interpolate(pixels, size=(size, size), mode=mode, align_corners=False, antialias=True)
        pixels = pixels.clamp(0, 255)  # (B, C, size, size); bicubic overshoots
    if pixels.shape[1] == 1:
        pixels = pixels.repeat(1, 3, 1, 1)  # (B, 3, size, size)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std, dtype=torch.float32, device=images.device).view(1, 3, 1, 1)
    return (pixels / 255 - mean) / std
