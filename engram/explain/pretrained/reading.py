"""Readings of a network: the number that is explained, and the relevance that it starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engram.explain.grid_commons import contributions
from engram.explain.pretrained.sharing import shared_by_magnitude
from engram.nn.pretrained.taps import Seen


class Seeds(tuple[tuple[Tensor, Tensor], ...]):
    """Pairs of a tensor of the forward pass, and relevance of its shape to be carried back from there."""


class Explained(Protocol):
    """What is read of one image."""

    def logit(self, seen: Seen) -> Tensor:
        """The number that is explained, (), of which gradients can be taken."""

    def seeds(self, seen: Seen) -> Seeds:
        """Where its relevance starts; together it sums to the number."""


@dataclass(frozen=True)
class LinearReading:
    """A linear function of averages over the places of levels, and of the features."""

    levels: tuple[Tensor | None, ...]
    """For each level weights (channels,), or None where it is not read."""
    features: Tensor | None = None
    """(features,)."""
    bias: float = 0.0

    def logit(self, seen: Seen) -> Tensor:
        """The weighted sum, ()."""
        values, weights = self._read(seen)
        return values @ weights + self.bias

    def seeds(self, seen: Seen) -> Seeds:
        """Each channel's contribution, given to places by what they contribute; the bias is shared by magnitude."""
        values, weights = self._read(seen)
        bias = torch.tensor(self.bias, device=weights.device)
        parts = contributions(values.detach(), weights, bias)
        factors = torch.where(values == 0, weights, parts / values.detach())  # per unit of a value
        given = torch.split(factors, [len(weight) for weight in self._weights()])
        return Seeds(
            (tensor, tensor.detach() * factor.view(1, -1, *[1] * (tensor.ndim - 2)) / tensor[0, 0].numel())
            for tensor, factor in zip(self._tensors(seen), given, strict=True)
        )

    def _read(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Values and weights (read,)."""
        values = [tensor[0].flatten(1).mean(1) if tensor.ndim == 4 else tensor[0] for tensor in self._tensors(seen)]
        return torch.cat(values), torch.cat(self._weights())

    def _tensors(self, seen: Seen) -> list[Tensor]:
        read = [level for level, weight in zip(seen.levels, self.levels, strict=True) if weight is not None]
        return read if self.features is None else [*read, seen.features]

    def _weights(self) -> list[Tensor]:
        return [weight for weight in (*self.levels, self.features) if weight is not None]


@dataclass(frozen=True)
class OwnLogit:
    """A logit of the network's own classifier."""

    index: int

    def logit(self, seen: Seen) -> Tensor:
        """The logit, ()."""
        return _logits(seen)[0, self.index]

    def seeds(self, seen: Seen) -> Seeds:
        """The logit itself, at its place."""
        logits = _logits(seen)
        start = torch.zeros_like(logits)
        start[0, self.index] = logits[0, self.index].detach()
        return Seeds([(logits, start)])


@dataclass(frozen=True)
class PooledReading:
    """A number that something else reads of pooled levels, and what was carried back to these.

    Rounding after pooling counts as no change. It holds for the image that it was found for; averages of gradients need
    a reading that computes.
    """

    number: float
    """What is explained."""
    pool: Callable[[Tensor], Tensor]
    """Averages of maps (1, channels, h, w) over cells."""
    carried: tuple[Tensor | None, ...]
    """For each level relevance of its averages (1, channels, ...), or their gradient; None where it is not read."""

    def logit(self, seen: Seen) -> Tensor:
        """The number, (), with the gradient that was carried back."""
        slope = torch.stack([(self.pool(level) * carried).sum() for level, carried in self._pairs(seen)]).sum()
        return slope - slope.detach() + self.number

    def seeds(self, seen: Seen) -> Seeds:
        """The relevance of averages, given to places by magnitude."""
        return Seeds((level, shared_by_magnitude(level, self.pool, carried)) for level, carried in self._pairs(seen))

    def _pairs(self, seen: Seen) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(seen.levels, self.carried, strict=True)
        return [(level, carried) for level, carried in pairs if carried is not None]


def _logits(seen: Seen) -> Tensor:
    assert seen.logits is not None, "a network without a classifier has no logits of its own"
    return seen.logits
