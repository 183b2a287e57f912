"""Linear layers under a rule of relevance propagation, with the weights that the rule reads made once.

The arithmetic is zennit's, operation by operation, without autograd: relevance is the same to the last bit.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engram.nn.layout import Layout, Node

STABILIZER = 1e-6
"""What zennit adds to the magnitude of a denominator."""


class LinearMap:
    """A convolution or a dense layer, whose weights are given with each call."""

    def __init__(self, module: nn.Conv2d | nn.Linear) -> None:
        self._conv = isinstance(module, nn.Conv2d)
        self._places: tuple[Any, ...] = (module.stride, module.padding) if isinstance(module, nn.Conv2d) else ()

    def forward(self, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, read, ...) -> (B, units, ...)."""
        return F.conv2d(values, weight, bias, *self._places) if self._conv else F.linear(values, weight, bias)

    def backward(self, carried: Tensor, values: Tensor, weight: Tensor) -> Tensor:
        """The gradient (B, read, ...) by the values, of what is carried back (B, units, ...)."""
        if not self._conv:
            return carried.mm(weight)
        mask = [True, False, False]
        found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            carried, values, weight, None, *self._places, (1, 1), False, (0, 0), 1, mask
        )
        return found[0]


class RuledLayer:
    """A layer of a private copy, and the way of relevance through it; nothing of it changes."""

    def __init__(self, module: nn.Conv2d | nn.Linear) -> None:
        self._map = LinearMap(module)
        self._weight = module.weight.detach()
        self._bias = None if module.bias is None else module.bias.detach()

    def forward(self, values: Tensor) -> Tensor:
        """(B, read, ...) -> (B, units, ...), not rectified."""
        return self._map.forward(values, self._weight, self._bias)

    @abstractmethod
    def backward(self, values: Tensor, relevance: Tensor) -> Tensor:
        """Relevance (B, read, ...) of the values, from that of the units."""


class HookedLayer(RuledLayer):
    """A layer under any rule that zennit states as inputs, weights and outputs that are modified."""

    def __init__(self, module: nn.Conv2d | nn.Linear, hook: Any) -> None:
        super().__init__(module)
        self._hook = hook
        self._weights = [_modified(module, modifier) for modifier in hook.param_modifiers]

    def backward(self, values: Tensor, relevance: Tensor) -> Tensor:
        hook, terms = self._hook, self._weights
        inputs = [modify(values) for modify in hook.input_modifiers]
        outputs = [
            modify(self._map.forward(given, *weights))
            for modify, given, weights in zip(hook.output_modifiers, inputs, terms, strict=True)
        ]
        mapped = hook.gradient_mapper(relevance, outputs)
        carried = (mapped,) if isinstance(mapped, Tensor) else mapped
        gradients = [
            self._map.backward(part, given, weight)
            for part, given, (weight, _) in zip(carried, inputs, terms, strict=True)
        ]
        found: Tensor = hook.reducer(inputs, gradients)
        return found


class PositiveLayer(RuledLayer):
    """A layer under the z+ rule whose values are nowhere negative: negative weights carry nothing."""

    def __init__(self, module: nn.Conv2d | nn.Linear, hook: Any) -> None:
        super().__init__(module)
        self._positive, self._nothing = _modified(module, hook.param_modifiers[0])

    def backward(self, values: Tensor, relevance: Tensor) -> Tensor:
        received = self._map.forward(values, self._positive, self._nothing)
        carried = torch.div(relevance, received.add_(STABILIZER))
        return self._map.backward(carried, values, self._positive).mul_(values)


class FlatLayer(RuledLayer):
    """A layer under the flat rule, which looks neither at the weights nor at the image."""

    def __init__(self, module: nn.Conv2d | nn.Linear, hook: Any) -> None:
        super().__init__(module)
        self._hook = hook
        self._even, self._nothing = _modified(module, hook.param_modifiers[0])
        self._last: tuple[torch.Size, Tensor, Tensor] | None = None

    def backward(self, values: Tensor, relevance: Tensor) -> Tensor:
        last = self._last
        if last is None or last[0] != values.shape:
            ones = torch.ones_like(values)
            received = self._map.forward(ones, self._even, self._nothing)
            self._last = last = (values.shape, ones, received + STABILIZER)
        _, ones, received = last
        return self._map.backward(relevance / received, ones, self._even)


def ruled(module: nn.Conv2d | nn.Linear, hook: Any, *, positive: bool) -> RuledLayer:
    """A layer under the rule of a zennit hook.

    Parameters
    ----------
    positive
        Whether its values are nowhere negative, and no picture: there even the sign of a zero is as zennit has it.
    """
    # Zennit takes a second to import, and only heatmaps need it.
    from engram.explain.zennit_import import rules

    if isinstance(hook, rules.Flat):
        return FlatLayer(module, hook)
    if isinstance(hook, rules.ZPlus) and positive:
        return PositiveLayer(module, hook)
    return HookedLayer(module, hook)


def positive(layout: Layout, node: Node) -> bool:
    """Whether no value of a node is ever negative."""
    if node.mixing or node.operation == "add":
        return node.rectify
    return positive(layout, layout.node(node.sources[0]))


def _modified(module: nn.Conv2d | nn.Linear, modifier: Any) -> tuple[Tensor, Tensor | None]:
    """The weights and biases of a layer as one of its rule's modifiers makes them; the layer stays as it is."""
    from engram.explain.zennit_import import core

    change = core.ParamMod.ensure(modifier)
    changed = core.zero_wrap(change.zero_params or [])(change.modifier)
    bias = None if module.bias is None else changed(module.bias.detach(), "bias")
    return changed(module.weight.detach(), "weight"), bias
