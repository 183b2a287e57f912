"""Relevance propagation step by step: all that one logit needs, prepared once and run for every image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.explain.ruled import RuledLayer
from engram.explain.rules import shares_of_sum
from engram.nn.layout import Node


class RelevanceStep(Protocol):
    """One operation, and the way of relevance through it."""

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        """The value, and what the way back has to know."""

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        """Relevance of each value that was given."""


class LayerStep:
    """A layer under a rule, rectified or not: relevance passes through the rectification as it is."""

    def __init__(self, layer: RuledLayer, *, rectify: bool) -> None:
        self._layer = layer
        self._rectify = rectify

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        (given,) = values
        found = self._layer.forward(given)  # (B, units, ...)
        return found.relu_() if self._rectify else found, given

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        return (self._layer.backward(known, relevance),)


class FlattenStep:
    """(B, ...) -> (B, values)."""

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        (given,) = values
        return given.flatten(1), given.shape

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        return (relevance.reshape(known),)


class MaxPoolStep:
    """Maximum over windows: relevance goes to the largest value."""

    def __init__(self, node: Node) -> None:
        self._places = ([node.kernel] * 2, [node.stride] * 2, [node.padding] * 2, [1, 1], False)

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        (given,) = values
        found, indices = torch.ops.aten.max_pool2d_with_indices(given, *self._places)
        return found, (given, indices)

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        given, indices = known
        return (torch.ops.aten.max_pool2d_with_indices_backward(relevance, given, *self._places, indices),)


class AverageStep:
    """Mean over space, (B, units, H, W) -> (B, units): relevance in proportion to the values."""

    def __init__(self, share: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._share = share

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        (given,) = values
        mean = F.adaptive_avg_pool2d(given, 1)
        return mean.flatten(1), (given, mean)

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        given, mean = known
        carried = self._share(relevance.view_as(mean), mean)
        return (given * (carried.expand_as(given) / (given.shape[2] * given.shape[3])),)


class SumStep:
    """A residual sum, rectified, whose relevance is divided by magnitude."""

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        trunk, branch = values
        return (trunk + branch).relu_(), values

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        trunk, branch = known
        return shares_of_sum(trunk, branch, relevance)


class JoinStep:
    """What is read, side by side: of each earlier owner some channels or values, then all own ones.

    Parameters
    ----------
    chosen
        For each value that is given int64 indices along its dimension 1; None where all are read.
    """

    def __init__(self, chosen: Sequence[Tensor | None]) -> None:
        self._chosen = tuple(chosen)

    def forward(self, *values: Tensor) -> tuple[Tensor, Any]:
        parts = [
            part if some is None else part.index_select(1, some)
            for part, some in zip(values, self._chosen, strict=True)
        ]
        return torch.cat(parts, 1), [(given.shape, part.shape[1]) for given, part in zip(values, parts, strict=True)]

    def backward(self, known: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        parts = torch.split(relevance, [count for _, count in known], 1)
        return tuple(
            part if some is None else relevance.new_zeros(shape).index_add_(1, some, part)
            for part, some, (shape, _) in zip(parts, self._chosen, known, strict=True)
        )


@dataclass(frozen=True)
class _Placed:
    step: RelevanceStep
    given: tuple[int, ...]
    found: int


class RelevancePlan:
    """Steps in order, from an image (1, C, H, W) to logits; a value's place is a number, and the image's is 0."""

    def __init__(self) -> None:
        self._steps: list[_Placed] = []

    def add(self, step: RelevanceStep, given: tuple[int, ...]) -> int:
        """Add a step that reads these places; the place that it writes, which is the result's if it is the last."""
        self._steps.append(_Placed(step, given, len(self._steps) + 1))
        return len(self._steps)

    @torch.no_grad()
    def run(self, given: Tensor, target: int) -> tuple[float, Tensor]:
        """The logit of a class, and what each pixel has of it, (1, C, H, W), for pixels in [0, 1]."""
        values, known = [given], []
        for one in self._steps:
            found, kept = one.step.forward(*[values[place] for place in one.given])
            values.append(found)
            known.append(kept)
        logits = values[-1]  # (1, classes)
        seed = torch.zeros_like(logits)
        seed[0, target] = logits[0, target]
        relevance: list[Tensor | None] = [*[None] * len(self._steps), seed]
        # What several steps read gathers relevance in the order in which autograd would: the last step's first.
        for one, kept in zip(reversed(self._steps), reversed(known), strict=True):
            carried = relevance[one.found]
            if carried is None:
                continue
            for place, part in zip(one.given, one.step.backward(kept, carried), strict=True):
                before = relevance[place]
                relevance[place] = part if before is None else before + part
        pixels = relevance[0]
        assert pixels is not None, "every logit is computed from the image"
        return float(logits[0, target]), pixels
