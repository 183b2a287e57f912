"""Outputs of a network's own classifier, of features of the commons that stand for what it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Outputs:
    """What a linear classifier that came with a network says of features, but for the constant of each output."""

    part: int
    """Which regression over commons that stand side by side reads the network, and it first."""
    first: int
    """Where its features begin among those of all."""
    scales: Tensor
    """(F,) float32: what the features that the classifier reads were multiplied by, powers of two."""
    weight: Tensor
    """(K, F) float32: as the network has it, and shared with it."""

    def __call__(self, features: Tensor) -> Tensor:
        """(B, K), of features (B, F of all commons)."""
        return self.of(features[:, self.first : self.first + len(self.scales)])

    def of(self, features: Tensor) -> Tensor:
        """(B, K), of what the classifier reads alone (B, F)."""
        return torch.nn.functional.linear(features / self.scales, self.weight)
