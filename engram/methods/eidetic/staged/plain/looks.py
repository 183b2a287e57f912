"""Plain commons: what is shown of images, in operations that `torch.export` follows."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.errors import NotExportable
from engram.nn.commons import Commons
from engram.nn.commons.bank import Bank
from engram.nn.commons.grid_commons import GridCommons
from engram.nn.commons.joined_commons import JoinedCommons
from engram.nn.commons.pretrained_commons import LEVELS, STEP, UNIT, ZERO, PretrainedCommons

PlainLook = tuple[Tensor | None, Tensor, Tensor | None]
"""Maps that engrams read in place of the pixels (B, C, h, w), features (B, F), and a classifier's logits."""


class BankFeatures(nn.Module):
    """A bank's features, (B, h, w, C) whole numbers -> (B, features)."""

    def __init__(self, bank: Bank) -> None:
        super().__init__()
        self.bank = bank

    def forward(self, pixels: Tensor) -> Tensor:
        bank = self.bank
        pixels = pixels[(slice(None), *bank.covered)]
        mean, scale = bank.normal(pixels)
        places = pixels.unfold(1, bank.patch, bank.stride).unfold(2, bank.patch, bank.stride)  # (B, H', W', C, y, x)
        patches = places.permute(0, 1, 2, 4, 5, 3).flatten(3)  # (B, H', W', y * x * C)
        weight, offsets = bank.matrix()
        responses = ((patches * bank.values - mean) * scale).round() @ weight.T + offsets
        return bank.pooled(bank.summed(responses))


class GridFeatures(nn.Module):
    """Banks of filters over the pixels."""

    def __init__(self, commons: GridCommons) -> None:
        super().__init__()
        self.banks = nn.ModuleList(BankFeatures(bank) for bank in commons.each())
        self.shrink = commons.shrink
        self._covered = commons.covered

    def forward(self, images: Tensor) -> PlainLook:
        whole = images.float()
        if self.shrink > 1:
            sums = F.avg_pool2d(whole[(..., *self._covered(whole))], self.shrink, divisor_override=1)
            whole = (sums / self.shrink**2).round()
        pixels = whole.permute(0, 2, 3, 1)
        return None, torch.cat([bank(pixels) for bank in self.banks], 1), None


class NetworkFeatures(nn.Module):
    """A network that a user brought, read as `PretrainedCommons` reads it, but of all images at once."""

    def __init__(self, commons: PretrainedCommons) -> None:
        super().__init__()
        self.commons = commons
        self.network = commons.network.module
        self.mapped = commons.maps is not None

    def forward(self, images: Tensor) -> PlainLook:
        commons = self.commons
        seen = commons.network.look_together(images)
        raw = commons.readings.read(seen.levels, seen.features)
        centres, scales = cast(Tensor, commons.centres), cast(Tensor, commons.scales)
        features = ((raw - centres) * scales / STEP).round().clamp(-LEVELS, LEVELS) * STEP
        if not self.mapped:
            return None, features, seen.logits
        centres, scales = (cast(Tensor, one)[:, None, None] for one in (commons.map_centres, commons.map_scales))
        drawn = (commons.readings.maps(seen.levels) - centres) * scales * UNIT + ZERO
        return drawn.round().clamp(0, 255) / 255.0, features, seen.logits


class JoinedFeatures(nn.Module):
    """Several commons side by side; maps and logits are those of the first network."""

    def __init__(self, commons: JoinedCommons) -> None:
        super().__init__()
        self.parts = nn.ModuleList(plain_look(part) for part in commons.each())
        networks = (number for number, part in enumerate(self.parts) if isinstance(part, NetworkFeatures))
        self._shown = next(networks, 0)

    def forward(self, images: Tensor) -> PlainLook:
        looks: list[PlainLook] = [part(images) for part in self.parts]
        given, _, logits = looks[self._shown]
        return given, torch.cat([features for _, features, _ in looks], 1), logits


def plain_look(commons: Commons) -> nn.Module:
    """What shows images, uint8 (B, C, H, W) -> `PlainLook`; raises NotExportable."""
    if isinstance(commons, GridCommons):
        return GridFeatures(commons)
    if isinstance(commons, PretrainedCommons):
        return NetworkFeatures(commons)
    if isinstance(commons, JoinedCommons):
        return JoinedFeatures(commons)
    raise NotExportable(f"commons of the kind {type(commons).__name__} cannot be written as a plain module")
