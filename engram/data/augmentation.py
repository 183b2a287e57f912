"""Random augmentation of training images: shifts and mirror images."""

from __future__ import annotations

import torch
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
    count, channels, height, width = images.shape
    part = 4 if far else 8
    rows = _places(count, height, max(1, height // part), generator, mirrored=far)  # (B, H)
    columns = _places(count, width, max(1, width // part), generator, mirrored=far)  # (B, W)
    places = (rows[:, :, None] * width + columns[:, None]).to(images.device).view(count, 1, -1)  # (B, 1, H x W)
    shifted = images.flatten(2).gather(2, places.expand(-1, channels, -1)).view(images.shape)
    if channels == 1:  # layers sum in the order that strides tell them, and learned so from such images ever since
        shifted = shifted.view(count, height, width, 1).permute(0, 3, 1, 2)
    if kind == "shift+flip":
        mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
        shifted = torch.where(mirrored[:, None, None, None], shifted.flip(3), shifted)
    return shifted.contiguous()


def _places(count: int, side: int, most: int, generator: torch.Generator, *, mirrored: bool) -> Tensor:
    """(B, side): which place of an image's side each place of the shifted one shows, moved by at most so many."""
    moved = torch.randint(0, 2 * most + 1, (count, 1), generator=generator) + torch.arange(-most, side - most)
    if not mirrored:
        return moved.clamp_(0, side - 1)
    return side - 1 - (side - 1 - moved.abs_()).abs_()
