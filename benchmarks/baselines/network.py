"""The same network as an engram's, without owners: what a baseline trains."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engram import Definition
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, pixels


class Features(nn.Module):
    """All but the head: (B, C, H, W) uint8 or float32 in 0 to 255 -> (B, F)."""

    def __init__(self, definition: Definition, labels: Sequence[str]) -> None:
        super().__init__()
        layout = layout_of(definition)
        self._name = layout.features.name
        self.trunk = Engram(layout, "all", labels, dict.fromkeys(layout.layers, 0), dict(layout.widths))
        self.width: int = self.trunk.head.in_features
        del self.trunk.head  # another module here

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(pixels(images), {})[self._name]
        return features


class Plain(nn.Module):
    """A backbone with one head for all classes: (B, C, H, W) -> logits (B, classes)."""

    def __init__(self, definition: Definition, labels: Sequence[str], seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = Features(definition, labels)
            self.head = nn.Linear(self.features.width, len(labels))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
