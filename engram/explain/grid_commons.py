"""Relevance propagation through commons on a grid, bank by bank."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.nn.commons.bank import FINE, STEP, Bank
from engram.nn.commons.grid_commons import GridCommons

LEAST = 1e-12
"""What a root is taken of at least; it has no slope at zero."""


def relevance_on_grid(commons: GridCommons, image: Tensor, weight: Tensor, bias: Tensor, *, flat: bool) -> Tensor:
    """Relevance (C, h, w) of the pixels of the image, averaged down where it is large; as `conserved`."""
    pixels = commons.pixels(image)  # (1, h, w, C)
    parts = commons(image)[0] * weight
    whole = parts.abs().sum()
    parts = parts + bias * (parts.abs() / whole if float(whole) > 0 else torch.full_like(parts, 1 / len(parts)))
    shares = parts.split([bank.features for bank in commons.each()])
    return torch.stack(
        [_of_bank(bank, pixels, share, flat=flat) for bank, share in zip(commons.each(), shares, strict=True)]
    ).sum(0)


def _of_bank(bank: Bank, pixels: Tensor, parts: Tensor, *, flat: bool) -> Tensor:
    """(1, h, w, C), (features,) -> (C, h, w): each feature's part, given to places by how strongly they respond."""
    weight, offsets = bank.matrix()
    found = bank.responses(bank.patches(pixels), weight, offsets)  # (1, H', W', N)
    sums = bank.summed(found.clone())[0]  # (2, N, grid, grid)
    above = torch.stack([found - bank.threshold, -found - bank.threshold]).clamp_(0, bank.ceiling - bank.threshold)
    shares = (_unfolded(bank, parts, sums) / sums.clamp_min(1)).float()  # (2, N, grid, grid)
    placed = torch.zeros_like(above)  # (2, 1, H', W', N)
    for row, (top, bottom) in enumerate(bank.rows):
        for column, (left, right) in enumerate(bank.columns):
            placed[:, 0, top:bottom, left:right] += shares[:, :, row, column][:, None, None]
    placed = (placed * above).permute(1, 0, 4, 2, 3).flatten(1, 2)  # (1, 2 N, H', W')
    filters = weight.view(len(weight), bank.patch, bank.patch, -1).permute(0, 3, 1, 2)
    image = pixels.permute(0, 3, 1, 2) / 255.0
    seen = image[(..., *bank.covered)]
    if flat:
        kernel = torch.ones(1, *filters.shape[1:], device=filters.device)
        relevance = F.conv_transpose2d(placed.sum(1, keepdim=True), kernel, stride=bank.stride) / kernel.numel()
    else:
        positive = torch.cat([filters.clamp_min(0), (-filters).clamp_min(0)])  # (2 N, C, patch, patch)
        received = F.conv2d(seen, positive, stride=bank.stride)
        shares = placed / received.clamp_min(1e-9)
        relevance = seen * F.conv_transpose2d(shares, positive, stride=bank.stride)
    whole = torch.zeros_like(image)
    whole[(..., *bank.covered)] = relevance
    return whole[0]


def _unfolded(bank: Bank, parts: Tensor, sums: Tensor) -> Tensor:
    """(features,), (2, N, grid, grid) -> (2, N, grid, grid): what of each part is due to a filter and to its mirror."""
    given = parts.double().view(2, bank.count, bank.grid, bank.grid)
    if not bank.about.mirror:
        return given
    plain, mirrored = sums[:, : bank.count], sums[:, bank.count :].flip(3)
    share = given / (plain + mirrored).clamp_min(1)
    return torch.cat([share * plain, (share * mirrored).flip(3)], 1)


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
