"""Images computed in parts, so that the maps of a network fit in memory however large the images are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from engram.nn.layout import Layout
from engram.nn.shapes import SHAPES, Computed

MOST_BYTES = 64 * 2**20
"""Of the largest map of all images of a part; while a node is computed, three or four of its size are there."""

SMALL = 32 * 32
"""Pixels of an image that is never computed in parts: what was learned of such images shall not change by a bit."""


def fitting(bytes_each: int, least: int = 1) -> int:
    """How many images fit, of which each takes so many bytes: a multiple of the largest of `SHAPES`, or a smaller one.

    Parameters
    ----------
    least
        As many are taken whether they fit or not.
    """
    count, largest = max(least, MOST_BYTES // bytes_each), SHAPES[-1]
    return count // largest * largest if count >= largest else max(shape for shape in SHAPES if shape <= count)


def map_bytes(layout: Layout, units: Mapping[str, int]) -> int:
    """Bytes that an image's largest map takes, the image itself included.

    Parameters
    ----------
    units
        How many are side by side in each layer: all that is read and the own ones.
    """
    maps = [units[node.layer] * node.per_unit * math.prod(node.size or ()) for node in layout.nodes]
    return 4 * max(layout.channels * math.prod(layout.image_size), *maps)


def at_once(layout: Layout, units: Mapping[str, int], most: int, maps: int = 1) -> int:
    """How many images of a batch of at most so many are computed together.

    Parameters
    ----------
    maps
        How many times the largest map is kept until the part is done; more than one where there are gradients.
    """
    if math.prod(layout.image_size) <= SMALL:
        return most
    return min(most, fitting(maps * map_bytes(layout, units)))


def pictures_at_once(images: Tensor) -> int:
    """How many of images (B, C, H, W) are taken together for the commons, which bound their own maps."""
    return fitting(4 * math.prod(images.shape[1:]), least=SHAPES[-1])


def in_parts(
    images: Tensor, size: int, run: Callable[[Tensor], Computed], check: Callable[[], None] | None = None
) -> Computed:
    """What `run` gives for images (B, ...), computed for at most `size` of them at a time.

    Parameters
    ----------
    run
        Gives a tensor, or a tuple of tensors, with a row for each image.
    check
        Called before each part; may raise.
    """
    found = []
    for part in torch.split(images, size) if len(images) else (images,):
        if check is not None:
            check()
        found.append(run(part))
    first = found[0]
    if len(found) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(found)
    return tuple(torch.cat(column) for column in zip(*found, strict=True))
