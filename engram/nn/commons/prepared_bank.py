"""Prepared banks: features as `Bank` defines them, computed in few and large operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from engram.nn.commons.bank import EXACT, FINE, LEVELS, STEP, Bank, windows

CACHED = 3 * 2**20
"""Bytes of responses that are computed at a time, so that they stay in the processor's cache."""


class PreparedBank:
    """A bank with everything laid out that does not depend on the images.

    Its features are those of `Bank` to the bit, by the same right: all sums are of whole numbers, and none is rounded.
    So any kernel will do, and the even and the odd part of filters that are mirrored halve the multiplications.
    """

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        device, patch, stride = bank.filters.weight.device, bank.patch, bank.stride
        height, width = (side.stop - side.start for side in bank.covered)
        exact = torch.float32 if bank.values * 255**2 <= EXACT else torch.float64
        channels = bank.values // patch**2
        self._down = _bands(height, patch, stride).to(device, exact)  # (H', h)
        across = _bands(width, patch, stride).repeat_interleave(channels, 1).T  # (w * C, W')
        self._across = across.to(device, exact).contiguous()
        self._filters: tuple[Product, ...] = _halves(bank) if bank.about.mirror else (_product(*bank.matrix()),)
        places, folds = cast(Tensor, bank.places), len(self._filters)  # (grid, grid, 1)
        self._signs = torch.tensor([1.0, -1.0], dtype=torch.float64, device=device).view(2, 1, 1, 1)
        self._unmoved = places * -float(bank.threshold)
        # Of features in steps; their squares where a root is taken. Powers of two change no rounding.
        steps = STEP**2 if bank.about.kind == "smooth" else STEP
        self._shares = places * (folds * bank.unit * bank.span * steps)
        largest = max(last - first for first, last in bank.rows) * max(last - first for first, last in bank.columns)
        self._held = torch.float32 if largest * bank.ceiling <= EXACT else torch.float64
        image = 4 * bank.count * len(self._down) * self._across.shape[1]
        self._images = max(1, min(16, CACHED // (image * folds)))

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, h, w, C) whole numbers from 0 to 255 -> (B, features) float32."""
        bank = self._bank
        wide, total, scale = self._seen(pixels)
        count = bank.count * len(self._filters)
        sums = pixels.new_empty(len(pixels), 2, bank.grid, bank.grid, count, dtype=self._held)
        for first in range(0, len(pixels), self._images):
            part = slice(first, first + self._images)
            self._sum(wide[part], total[part], scale[part], sums[part])
        return self._features(sums)

    def responses(self, pixels: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, H', W', N): of all filters, then of those mirrored."""
        found = tuple(self._responses(*self._seen(pixels)))
        return found[0] if len(found) == 1 else torch.cat(found, 3)

    def _seen(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is covered of pixels (B, h, w, C), times the values of a patch, and what `_normal` says of it."""
        pixels = pixels[(slice(None), *self._bank.covered)].contiguous()
        return pixels * self._bank.values, *self._normal(pixels)

    def _normal(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As `Bank.normal`, of what is covered: (B, H', W', 1) each."""
        values, flat = self._bank.values, pixels.flatten(2).to(self._down.dtype)  # (B, h, w * C)
        found = self._down @ (torch.stack([flat, flat * flat]) @ self._across)  # (2, B, H', W')
        total, squares = torch.unbind(found.double())
        spread = squares.mul_(values).addcmul_(total, total, value=-1)
        spread.add_(values * 255**2 * self._bank.contrast_floor)
        scale = spread.sqrt_().reciprocal_().mul_(FINE).float()
        return found[0].float()[..., None], scale[..., None]

    def _sum(self, wide: Tensor, total: Tensor, scale: Tensor, into: Tensor) -> None:
        """Write sums over the cells of the grid into (B, 2, grid, grid, N): of bounded responses."""
        count = self._bank.count
        for number, found in enumerate(self._responses(wide, total, scale)):
            self._pool(found, into[..., number * count : (number + 1) * count])

    def _responses(self, wide: Tensor, total: Tensor, scale: Tensor) -> Iterator[Tensor]:
        """(B, H', W', count) of the filters and, with `mirror`, of those mirrored; each may be overwritten."""
        bank = self._bank
        if not bank.about.mirror:
            found = windows(wide, bank.patch, bank.patch, bank.stride)
            (product,) = self._filters
            yield product(found.sub_(total).mul_(scale).round_())
            return
        half = (bank.patch + 1) // 2
        left = windows(wide, half, bank.patch, bank.stride)
        right = windows(wide.flip(2), half, bank.patch, bank.stride).flip(2)
        for part in (left, right):
            part.sub_(total).mul_(scale).round_()
        first, second = self._filters
        even, odd = first(left + right), second(left.sub_(right))
        yield even + odd
        yield even.sub_(odd)

    def _pool(self, responses: Tensor, into: Tensor) -> None:
        """Of responses (B, H', W', N), which are overwritten, into (B, 2, grid, grid, N)."""
        bank, (batch, _, columns, count) = self._bank, responses.shape
        least, most = bank.threshold, bank.ceiling
        lines = responses.new_empty(batch, 2, bank.grid, columns, count)
        above = torch.clamp(responses, least, most)
        for sign, bounded in enumerate((above, responses.clamp_(-most, -least))):
            _summed(bounded, 1, bank.rows, lines[:, sign])
        _summed(lines, 3, bank.columns, into)

    def _features(self, sums: Tensor) -> Tensor:
        """(B, 2, grid, grid, N) -> (B, features): on the grid of whole steps; the sums are overwritten."""
        bank = self._bank
        levels = sums.double().mul_(self._signs).add_(self._unmoved)
        if bank.about.mirror:
            levels = levels[..., : bank.count] + levels[..., bank.count :].flip(3)
        levels = levels.div_(self._shares)
        if bank.about.kind == "smooth":
            levels.sqrt_()
        levels.round_().clamp_(0, LEVELS)
        found = levels.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
        return found.mul_(STEP).flatten(1)


def _summed(values: Tensor, dim: int, cells: Sequence[tuple[int, int]], into: Tensor) -> None:
    """Write sums over a dimension of values, from the first place of each cell to its last, into a tensor."""
    (first, last), steps = cells[0], {after[0] - before[0] for before, after in pairwise(cells)}
    if len({end - start for start, end in cells}) == 1 and len(steps) < 2:  # all in one call
        torch.sum(values.unfold(dim, last - first, *steps or (1,)), -1, dtype=into.dtype, out=into)
        return
    for number, (first, last) in enumerate(cells):
        part = values.narrow(dim, first, last - first)
        torch.sum(part, dim, dtype=into.dtype, out=into.select(dim, number))


Product = Callable[[Tensor], Tensor]
"""(B, H', W', K) -> (B, H', W', N)."""


def _product(weight: Tensor, offsets: Tensor | None) -> Product:
    """The product with filters (N, K), to which offsets (N,) are added."""
    # No public operation: where a PyTorch lacks it, or knows no kernel for it, filters are applied as by a `Bank`.
    there = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    there = there and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    if weight.device.type != "cpu" or not there:
        return lambda patches: Bank.responses(patches, weight, offsets)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda patches: cast(Tensor, linear(patches, packed, offsets, "none", [], ""))


def _halves(bank: Bank) -> tuple[Product, Product]:
    """Products with the even and the odd part of the filters, (count, patch * half * C) each.

    A filter's response is the sum of theirs, its mirror image's the difference: half the multiplications. Halves of
    whole numbers are exact.
    """
    weight, half = bank.filters.weight.permute(0, 2, 3, 1), (bank.patch + 1) // 2  # (count, y, x, C)
    left, right = weight[:, :, :half] / 2, weight.flip(2)[:, :, :half] / 2
    even, odd = left + right, left - right
    if bank.patch % 2:
        even[:, :, -1] /= 2  # the column in the middle is its own mirror image, and is there twice
    return _product(even.flatten(1), cast(Tensor, bank.offsets)), _product(odd.flatten(1), None)


def _bands(length: int, patch: int, stride: int) -> Tensor:
    """(places, length): which of a side's pixels each patch along it has, as ones and zeros."""
    places = (length - patch) // stride + 1
    away = torch.arange(length) - stride * torch.arange(places)[:, None]
    return ((away >= 0) & (away < patch)).double()
