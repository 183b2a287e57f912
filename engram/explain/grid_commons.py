"""Relevance propagation through commons on a grid, bank by bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.commons.bank import FINE, STEP, Bank
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.commons.prepared_bank import PreparedBank

LEAST = 1e-12
"""What a root is taken of at least; it has no slope at zero."""


class GridRelevance:
    """Relevance of pixels for logits that read commons on a grid; only read."""

    def __init__(self, commons: GridCommons) -> None:
        self._banks = [BankRelevance(bank) for bank in commons.each()]

    def __call__(self, pixels: Tensor, weight: Tensor, bias: Tensor, *, flat: bool) -> tuple[Tensor, float]:
        """Relevance (C, h, w) of the pixels (1, h, w, C) of an image that was averaged down, and the logit; as
        `CommonsRelevance.conserved`."""
        seen = [bank.see(pixels) for bank in self._banks]
        features = seen[0].features if len(seen) == 1 else torch.cat([one.features for one in seen])
        parts = torch.split(contributions(features, weight, bias), [len(one.features) for one in seen])
        image = pixels.permute(0, 3, 1, 2) / 255.0  # (1, C, h, w)
        found = [
            bank.relevance(one, image, part, flat=flat)
            for bank, one, part in zip(self._banks, seen, parts, strict=True)
        ]
        return torch.stack(found).sum(0), float(features @ weight + bias)


@dataclass(frozen=True)
class SeenByBank:
    """What a bank makes of an image on the way to its features, in whole numbers but for the features."""

    above: Tensor
    """(2, H', W', N): by how much responses, and their negatives, exceed the threshold."""
    sums: Tensor
    """(2, N, grid, grid) float64: the same, summed over the cells of the grid."""
    features: Tensor
    """(features,)."""


class BankRelevance:
    """Relevance through one bank, whose filters are put in order once."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self._prepared = PreparedBank(bank)
        weight, _ = bank.matrix()
        count = len(weight)
        filters = weight.view(count, bank.patch, bank.patch, -1).permute(0, 3, 1, 2)
        # As a matrix, since most of the time of a transposed convolution goes into laying out its weights anew.
        self._positive = torch.cat([filters.clamp_min(0), (-filters).clamp_min(0)]).flatten(1)  # (2 N, K)
        self._even = torch.ones(1, *filters.shape[1:], device=filters.device)
        self._rows, self._columns = stretches(bank.rows), stretches(bank.columns)

    def see(self, pixels: Tensor) -> SeenByBank:
        """See the pixels (1, h, w, C) of an image; every sum is exact, so that any way gives the bank's own numbers."""
        bank = self._bank
        found = self._prepared.responses(pixels)[0]  # (H', W', N)
        above = torch.stack([found, -found]).sub_(bank.threshold).clamp_(0, bank.ceiling - bank.threshold)
        sums = bank.cell_sums(above).permute(0, 3, 1, 2)  # (2, N, grid, grid)
        return SeenByBank(above, sums, bank.pooled(sums[None])[0])

    def relevance(self, seen: SeenByBank, image: Tensor, parts: Tensor, *, flat: bool) -> Tensor:
        """(C, h, w) of an image (1, C, h, w): each feature's part, given to places by how strongly they respond."""
        bank, sums = self._bank, seen.sums
        shares = (self._unfolded(parts, sums) / sums.clamp_min(1)).float()  # (2, N, grid, grid)
        placed = self._placed(seen.above, shares)  # (2 N, places)
        visible = image[(..., *bank.covered)]
        if flat:
            kernel = self._even
            evenly = placed.view(-1, *seen.above.shape[1:3]).sum(0)[None, None]
            relevance = F.conv_transpose2d(evenly, kernel, stride=bank.stride) / kernel.numel()
        else:
            received = self._positive @ F.unfold(visible, bank.patch, stride=bank.stride)[0]  # (2 N, places)
            carried = self._positive.T @ placed.div_(received.clamp_min_(1e-9))  # (K, places)
            relevance = visible * F.fold(carried[None], visible.shape[2:], bank.patch, stride=bank.stride)
        whole = torch.zeros_like(image)
        whole[(..., *bank.covered)] = relevance
        return whole[0]

    def _placed(self, above: Tensor, shares: Tensor) -> Tensor:
        """(2, H', W', N), (2, N, grid, grid) -> (2 N, places): each place's own by the shares of the cells it is in."""
        placed = torch.empty_like(above)
        for (top, bottom), rows in self._rows:
            for (left, right), columns in self._columns:
                share = torch.zeros_like(shares[..., 0, 0])  # (2, N)
                for row, column in product(rows, columns):
                    share += shares[..., row, column]
                stretch = (slice(None), slice(top, bottom), slice(left, right))
                torch.mul(above[stretch], share[:, None, None], out=placed[stretch])
        found = above.new_empty(2, above.shape[3], above[0, ..., 0].numel())
        for sign in range(2):  # matrix by matrix, which is laid out anew faster than all at once
            found[sign] = placed[sign].flatten(0, 1).T
        return found.flatten(0, 1)

    def _unfolded(self, parts: Tensor, sums: Tensor) -> Tensor:
        """(features,), (2, N, grid, grid) -> (2, N, grid, grid): what is due to a filter and to its mirror image."""
        bank = self._bank
        given = parts.double().view(2, bank.count, bank.grid, bank.grid)
        if not bank.about.mirror:
            return given
        plain, mirrored = sums[:, : bank.count], sums[:, bank.count :].flip(3)
        share = given / (plain + mirrored).clamp_min(1)
        return torch.cat([share * plain, (share * mirrored).flip(3)], 1)


Stretch = tuple[tuple[int, int], tuple[int, ...]]
"""First place and end of a stretch along one side, and the cells that its places are in."""


def stretches(cells: Sequence[tuple[int, int]]) -> list[Stretch]:
    """The stretches of one side, of whose places all are in the same cells."""
    ends = sorted({end for cell in cells for end in cell})
    return [
        ((first, end), tuple(number for number, cell in enumerate(cells) if cell[0] <= first and end <= cell[1]))
        for first, end in pairwise(ends)
    ]


def contributions(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What each of the features (F,) contributes to `weight @ features + bias`; the bias is shared by magnitude."""
    parts = features * weight
    magnitudes = parts.abs()
    whole = magnitudes.sum()
    return parts + bias * (magnitudes / whole if float(whole) > 0 else torch.full_like(parts, 1 / len(parts)))


def smooth_features(commons: GridCommons, image: Tensor) -> Tensor:
    """(1, C, H, W) -> (features,): what the features would be without any rounding, which has no slope."""
    shrunk = F.avg_pool2d(image[(..., *commons.covered(image))], commons.shrink) if commons.shrink > 1 else image
    return torch.cat([_smooth(bank, shrunk) for bank in commons.each()])


def _smooth(bank: Bank, image: Tensor) -> Tensor:
    weight, offsets = (tensor.to(image.dtype) for tensor in bank.matrix())
    image = image[(..., *bank.covered)]
    slid = image.unfold(2, bank.patch, bank.stride).unfold(3, bank.patch, bank.stride)  # (1, C, H', W', patch, patch)
    patches = slid.permute(0, 2, 3, 4, 5, 1).flatten(3)  # (1, H', W', K)
    centred = patches - patches.mean(3, keepdim=True)
    contrast = (centred.square().sum(3, keepdim=True) + bank.contrast_floor).sqrt()
    found = centred / contrast * (FINE * bank.values**0.5) @ weight.T + offsets  # (1, H', W', N)
    both = torch.stack([F.relu(found - bank.threshold), F.relu(-found - bank.threshold)])[:, 0]  # (2, H', W', N)
    cells = [
        [both[:, top:bottom, left:right].mean((1, 2)) for left, right in bank.columns] for top, bottom in bank.rows
    ]
    averages = torch.stack([torch.stack(row, 2) for row in cells], 2)  # (2, N, grid, grid)
    if bank.about.mirror:
        averages = (averages[:, : bank.count] + averages[:, bank.count :].flip(3)) / 2
    shares = averages / (bank.unit * bank.span)
    return (shares.clamp_min(LEAST).sqrt() if bank.about.kind == "smooth" else shares).flatten().clamp_max(4095 * STEP)
