"""One bank of filters, whose features are computed in whole numbers, without rounding any sum."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.config.definition import ResolvedCommons

LEVELS = 4095
"""The largest multiple of its step that a feature can be: 12 bits, whose products add up in float64 exactly."""

FINE = 64
"""What a patch's value of one standard deviation becomes."""

EXACT = 2**24
"""Up to here float32 holds every whole number."""

UNIT = {"smooth": 2**16, "learned": 2**13}
"""What a response of 1 becomes."""

STEP = 2.0**-12
"""What features are multiples of."""

SPAN = {"smooth": 1.0, "learned": 2.0}
"""The average response that fills the grid."""

CONTRAST_FLOOR = {"smooth": 0.1, "learned": 0.01}
"""Added to the sum of squares of a patch (of the learned kind: to each value's share of it)."""

THRESHOLD = {"smooth": 0.1, "learned": 0.25}
"""What a response has to exceed to count."""


class Bank(nn.Module):
    """Filter responses over local contrast, both signs, averaged over a grid of cells.

    Pixels, normalised patches, filters and responses are whole numbers in float32, and no sum of them exceeds what
    float32 (or float64, where they are pooled) holds exactly. So features do not depend on the kernel that computes
    them, on the number of threads, or on an image's neighbours, and a mirrored picture gives the mirror filters'
    responses to the bit.

    Parameters
    ----------
    channels, height, width
        Of the images, after they have been averaged down.
    """

    def __init__(self, about: ResolvedCommons, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.about = about
        self.patch, self.stride, self.grid = about.patch, about.stride, about.grid
        self.count = about.features // (2 * about.grid**2)
        self.features = 2 * about.grid**2 * self.count
        self.unit, self.span = UNIT[about.kind], SPAN[about.kind]
        self.threshold = round(THRESHOLD[about.kind] * self.unit)
        self.values = channels * self.patch**2
        self.contrast_floor = CONTRAST_FLOOR[about.kind] * (self.values if about.kind == "learned" else 1)
        places = [(side - self.patch) // self.stride + 1 for side in (height, width)]
        self.rows, self.columns = (cells(number, self.grid) for number in places)
        spans = [(number - 1) * self.stride + self.patch for number in places]
        self.covered = (covered(height, spans[0]), covered(width, spans[1]))
        self.ceiling = min(2**17, EXACT // max(last - first for first, last in self.rows))
        self.filters = nn.Conv2d(channels, self.count, self.patch, bias=False)
        self.filters.weight.requires_grad_(False)
        # As patches are laid out, so that the filters are one matrix as they are.
        self.filters.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.register_buffer("offsets", torch.zeros(self.count))
        rows, columns = (torch.tensor([last - first for first, last in side]) for side in (self.rows, self.columns))
        cell_places = (rows[:, None] * columns)[:, :, None].double()  # (grid, grid, 1)
        self.register_buffer("places", cell_places, persistent=False)
        with torch.no_grad():
            self.filters.weight.zero_()

    @torch.no_grad()
    def set(self, filters: Tensor, offsets: Tensor) -> None:
        """Take filters (count, C, patch, patch) and what is added to their responses, (count,), rounded."""
        scale = self.unit / (FINE * self.values**0.5)
        self.filters.weight.copy_((filters.double() * scale).round())
        cast(Tensor, self.offsets).copy_((offsets.double() * self.unit).round())

    def matrix(self) -> tuple[Tensor, Tensor]:
        """The filters (N, patch * patch * C) and their offsets (N,); with `mirror`, then those mirrored."""
        weight, offsets = self.filters.weight.permute(0, 2, 3, 1), cast(Tensor, self.offsets)  # (count, y, x, C)
        if self.about.mirror:
            weight, offsets = torch.cat([weight, weight.flip(2)]), torch.cat([offsets, offsets])
        return weight.reshape(len(weight), -1), offsets

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, h, w, C) whole numbers from 0 to 255 -> (B, features) float32; `PreparedBank` gives the same sooner."""
        return self.pooled(self.summed(self.responses(self.patches(pixels), *self.matrix())))

    def patches(self, pixels: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, H', W', patch * patch * C): patches less their mean, over their contrast, rounded."""
        pixels = pixels[(slice(None), *self.covered)]
        mean, scale = self.normal(pixels)
        found = windows(pixels * self.values, self.patch, self.patch, self.stride)
        return found.sub_(mean).mul_(scale).round_()

    def normal(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What is taken from so many times a patch, and what the rest is multiplied by: (B, H', W', 1) each."""
        patch, stride, values, wide = self.patch, self.stride, self.values, pixels.double()
        ones = torch.ones(wide.shape[3], dtype=torch.float64, device=wide.device)
        both = torch.stack([wide @ ones, (wide * wide) @ ones])  # (2, B, h, w): this product is faster than a sum
        total, squares = both.unfold(2, patch, stride).sum(4).unfold(3, patch, stride).sum(4)  # (B, H', W')
        spread = values * squares - total * total + values * 255**2 * self.contrast_floor
        return total.float()[..., None], (FINE / spread.sqrt()).float()[..., None]

    @staticmethod
    def responses(patches: Tensor, weight: Tensor, offsets: Tensor | None) -> Tensor:
        """(B, H', W', K) -> (B, H', W', N)."""
        batch, height, width, values = patches.shape
        # Rows of places as images: only for many images is a convolution given to the fastest kernel.
        lines = patches.view(batch * height, 1, width, values).permute(0, 3, 1, 2)
        found = F.conv2d(lines, weight[:, :, None, None], offsets)  # (B * H', N, 1, W')
        return found.permute(0, 2, 3, 1).view(batch, height, width, len(weight))

    def summed(self, responses: Tensor) -> Tensor:
        """(B, H', W', N) -> (B, 2, N, grid, grid) float64: by how much they exceed the threshold, and their negatives.

        The responses are overwritten.
        """
        least, most = self.threshold, self.ceiling
        unmoved = cast(Tensor, self.places) * least
        above = self.cell_sums(torch.clamp(responses, least, most)) - unmoved
        below = -self.cell_sums(responses.clamp_(-most, -least)) - unmoved
        return torch.stack([above, below], 1).permute(0, 1, 4, 2, 3)

    def cell_sums(self, responses: Tensor) -> Tensor:
        """(B, H', W', N) -> (B, grid, grid, N) float64: sums over the cells of the grid."""
        rows = torch.stack([responses[:, first:last].sum(1) for first, last in self.rows], 1)
        return torch.stack([rows[:, :, first:last].sum(2, dtype=torch.float64) for first, last in self.columns], 2)

    def pooled(self, sums: Tensor) -> Tensor:
        """(B, 2, N, grid, grid) float64 -> (B, features): on the grid of whole steps."""
        folds = 1
        if self.about.mirror:
            plain, mirrored = sums[:, :, : self.count], sums[:, :, self.count :]
            sums, folds = plain + mirrored.flip(4), 2
        shares = sums / (cast(Tensor, self.places)[:, :, 0] * (folds * self.unit * self.span))
        found = shares.sqrt() if self.about.kind == "smooth" else shares
        levels = (found * (1 / STEP)).round_().clamp_(0, LEVELS)
        return levels.mul_(STEP).float().flatten(1)


def windows(pixels: Tensor, columns: int, patch: int, stride: int) -> Tensor:
    """(B, h, w, C) -> (B, H', W', patch * columns * C): the first columns of each patch, row by row."""
    batch, height, width, channels = pixels.shape
    image, row, column, _ = pixels.stride()
    places = ((height - patch) // stride + 1, (width - patch) // stride + 1)
    shape = (batch, *places, patch, columns * channels)
    return pixels.as_strided(shape, (image, row * stride, column * stride, row, 1)).reshape(batch, *places, -1)


def covered(side: int, length: int) -> slice:
    """The middle of a side."""
    first = (side - length) // 2
    return slice(first, first + length)


def cells(places: int, grid: int) -> tuple[tuple[int, int], ...]:
    """First place and end of each cell along one side; where they do not divide evenly, neighbours share a place."""
    return tuple((number * places // grid, -(-(number + 1) * places // grid)) for number in range(grid))
