"""Slow reference of heatmaps: copies, hooks and filters made anew for each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain.hooked import hooked
from engram.explain.preparation import reach_of
from engram.explain.rules import GRADIENTS, private_copy
from engram.nn.commons import Commons
from engram.nn.commons.bank import Bank
from engram.nn.commons.float_commons import FloatCommons
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.network import Engram, pixels

TINY = torch.finfo(torch.float32).tiny


def plain_relevance(
    stack: Sequence[Engram], commons: Commons | None, image: Tensor, owner: int, target: int, composite: str
) -> tuple[Tensor, float]:
    """The relevance (C, H, W) of an image (C, H, W) uint8 for one logit, and the logit."""
    nodes, engram, given = reach_of(stack, owner), stack[owner], pixels(image[None])
    reach = [private_copy(one, share=composite not in GRADIENTS) for one in stack if one.task in nodes]
    logit, carried = hooked(reach, nodes, given, target, composite)
    if composite == "gradient_times_input":
        carried = carried * given
    if engram.common is None:
        return carried[0] + 0.0, logit
    assert commons is not None, "a head that reads the commons is explained with them"
    assert composite not in GRADIENTS, "gradients of the commons have a test of their own"
    weight, bias = engram.common.weight[target].detach(), engram.common.bias[target].detach()
    more = conserved(commons, given, weight, bias, flat=composite == "epsilon_plus_flat")
    return carried[0] + more, logit + float(commons(given)[0] @ weight + bias)


@torch.no_grad()
def conserved(commons: Commons, image: Tensor, weight: Tensor, bias: Tensor, *, flat: bool) -> Tensor:
    """As `CommonsRelevance.conserved`."""
    parts = commons(image)[0] * weight
    whole = parts.abs().sum()
    parts = parts + bias * (parts.abs() / whole if float(whole) > 0 else torch.full_like(parts, 1 / len(parts)))
    if isinstance(commons, GridCommons):
        shrunk = commons.pixels(image).permute(0, 3, 1, 2) / 255.0
        split = torch.split(parts, [bank.features for bank in commons.each()])
        found = [
            of_bank(bank, commons.pixels(image), part, flat) for bank, part in zip(commons.each(), split, strict=True)
        ]
        relevance = torch.stack(found).sum(0)[None]
        wide, covered = torch.zeros_like(image), (..., *commons.covered(image))
        wide[covered] = spread(commons.shrink, relevance, shrunk, image[covered], flat)
        return wide[0]
    assert isinstance(commons, FloatCommons), "there are commons on a grid, and those that are not"
    shrunk = commons.shrunk(image)
    responses = commons.responses(shrunk)  # (1, 2 filters, H', W')
    cells = parts.view(1, -1, commons.grid, commons.grid)
    responses.requires_grad_(True)
    with torch.enable_grad():
        averages = F.adaptive_avg_pool2d(responses, commons.grid)
        (shares,) = torch.autograd.grad(averages, responses, cells / averages.detach().clamp_min(TINY))
    relevance = to_pixels(commons.filters.weight, shares * responses.detach(), shrunk, 1, flat)
    return spread(commons.shrink, relevance, shrunk, image, flat)[0]


def of_bank(bank: Bank, pixels: Tensor, parts: Tensor, flat: bool) -> Tensor:
    """(1, h, w, C), (features,) -> (C, h, w): each feature's part, given to places by how strongly they respond."""
    weight, offsets = bank.matrix()
    found = bank.responses(bank.patches(pixels), weight, offsets)  # (1, H', W', N)
    sums = bank.summed(found.clone())[0]  # (2, N, grid, grid)
    above = torch.stack([found - bank.threshold, -found - bank.threshold]).clamp_(0, bank.ceiling - bank.threshold)
    due = parts.double().view(2, bank.count, bank.grid, bank.grid)
    if bank.about.mirror:
        plain, mirrored = sums[:, : bank.count], sums[:, bank.count :].flip(3)
        share = due / (plain + mirrored).clamp_min(1)
        due = torch.cat([share * plain, (share * mirrored).flip(3)], 1)
    shares = (due / sums.clamp_min(1)).float()  # (2, N, grid, grid)
    placed = torch.zeros_like(above)  # (2, 1, H', W', N)
    for row, (top, bottom) in enumerate(bank.rows):
        for column, (left, right) in enumerate(bank.columns):
            placed[:, 0, top:bottom, left:right] += shares[:, :, row, column][:, None, None]
    placed = (placed * above).permute(1, 0, 4, 2, 3).flatten(1, 2)  # (1, 2 N, H', W')
    filters = weight.view(len(weight), bank.patch, bank.patch, -1).permute(0, 3, 1, 2)
    image = pixels.permute(0, 3, 1, 2) / 255.0
    whole = torch.zeros_like(image)
    way = to_pixels if flat else to_pixels_by_products
    whole[(..., *bank.covered)] = way(filters, placed, image[(..., *bank.covered)], bank.stride, flat)
    return whole[0]


def to_pixels_by_products(filters: Tensor, placed: Tensor, seen: Tensor, stride: int, flat: bool) -> Tensor:
    """As `to_pixels` by the z+ rule, but for the last bits: by products of matrices instead of convolutions."""
    assert not flat, "evenly it is the same either way"
    side, positive = filters.shape[-1], torch.cat([filters.clamp_min(0), (-filters).clamp_min(0)]).flatten(1)
    received = positive @ F.unfold(seen, side, stride=stride)[0]
    carried = positive.T @ (placed[0].flatten(1) / received.clamp_min(1e-9))
    return seen * F.fold(carried[None], seen.shape[2:], side, stride=stride)


def to_pixels(filters: Tensor, placed: Tensor, seen: Tensor, stride: int, flat: bool) -> Tensor:
    """Relevance of places (1, 2 N, H', W') given to pixels (1, C, h, w), evenly or by the z+ rule."""
    if flat:
        kernel = torch.ones(1, *filters.shape[1:])
        return F.conv_transpose2d(placed.sum(1, keepdim=True), kernel, stride=stride) / kernel.numel()
    positive = torch.cat([filters.clamp_min(0), (-filters).clamp_min(0)])  # (2 N, C, patch, patch)
    received = F.conv2d(seen, positive, stride=stride)
    return seen * F.conv_transpose2d(placed / received.clamp_min(1e-9), positive, stride=stride)


def spread(side: int, relevance: Tensor, shrunk: Tensor, image: Tensor, flat: bool) -> Tensor:
    """Relevance of shrunken pixels, given to the pixels that they average."""
    if side == 1:
        return relevance
    parts = relevance / side**2 if flat else relevance / (shrunk * side**2).clamp_min(TINY)
    wide = F.interpolate(parts, scale_factor=float(side), mode="nearest")
    padded = F.pad(wide, (0, image.shape[3] - wide.shape[3], 0, image.shape[2] - wide.shape[2]))
    return padded if flat else padded * image
