"""Network of a baseline: a backbone without owners of units, with one head for all classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engram import Definition
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, pixels


class Features(nn.Module):
    """Backbone without the head: (B, C, H, W) uint8 or float32 in 0 to 255 -> (B, F)."""

    def __init__(self, definition: Definition, labels: Sequence[str]) -> None:
        super().__init__()
        layout = layout_of(definition)
        self._name = layout.features.name
        self.trunk = Engram(layout, "all", labels, dict.fromkeys(layout.layers, 0), dict(layout.widths))
        self.width: int = self.trunk.head.in_features
        del self.trunk.head  # replaced by that of `BaselineNetwork`

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(pixels(images), {})[self._name]
        return features


class BaselineNetwork(nn.Module):
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
