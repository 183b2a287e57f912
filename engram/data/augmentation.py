"""Random augmentation of training images: shifts and mirror images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.errors import InvalidOptions

KINDS = ("none", "shift", "shift+flip")
"""The names of all kinds of augmentation."""


def augmented(images: Tensor, kind: str, generator: torch.Generator, *, far: bool = False) -> Tensor:
    """Shift each image by up to an eighth of its size (edges repeat), and mirror half of them where asked.

    Parameters
    ----------
    images
        (B, C, H, W) float32.
    kind
        "none", "shift" or "shift+flip".
    far
        Whether images are shifted by up to a quarter, and mirrored at their edges: where a class has but a few images
        it is not to be known by where on them something lies.

    Raises
    ------
    InvalidOptions
        for any other kind.
    """
    if kind not in KINDS:
        raise InvalidOptions(f"no augmentation is called {kind!r}; there are {', '.join(KINDS)}")
    if kind == "none":
        return images
    count, _, height, width = images.shape
    part, mode = (4, "reflect") if far else (8, "replicate")
    rows, columns = max(1, height // part), max(1, width // part)
    padded = F.pad(images, (columns, columns, rows, rows), mode=mode)  # (B, C, H + 2r, W + 2c)
    top = torch.randint(0, 2 * rows + 1, (count, 1), generator=generator) + torch.arange(height)  # (B, H)
    left = torch.randint(0, 2 * columns + 1, (count, 1), generator=generator) + torch.arange(width)  # (B, W)
    top, left = top.to(images.device), left.to(images.device)
    each = torch.arange(count, device=images.device)[:, None, None]
    shifted = padded[each, :, top[:, :, None], left[:, None, :]].permute(0, 3, 1, 2)  # (B, C, H, W)
    if kind == "shift+flip":
        mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
        shifted = torch.where(mirrored[:, None, None, None], shifted.flip(3), shifted)
    return shifted.contiguous()
