"""Optimisers by name, and optimisers that scale the step of each unit by its elasticity."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import SGD, Adam, AdamW, Optimizer

from engram.config.options import LearnOptions
from engram.context import LearnContext
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.elastic import HEAD, Blocked, Rates, follow, spread, weight_of
from engram.nn.network import Engram
from engram.runtime import uncompiled


def create_optimiser(context: LearnContext, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """The optimiser that the context makes, else the one that its options name."""
    make, fused = context.optimiser, context.learning > 1
    if make is None and not fused:
        return optimiser_of(context.options, parameters)
    found = (make or partial(optimiser_of, context.options, fused=True))(list(parameters))
    # Also of one that is brought, which may be fused as well, or change what lies behind a weight (`weight.data`).
    found.register_step_post_hook(_count)
    return found


def optimiser_of(options: LearnOptions, parameters: Iterable[nn.Parameter], *, fused: bool = False) -> Optimizer:
    """The optimiser that the options name.

    Parameters
    ----------
    fused
        Whether a step goes through all of a weight's moments at once, which rounds otherwise.
    """
    rate, decay, given = options.learning_rate, options.weight_decay, list(parameters)
    match options.optimiser:
        case "sgd":
            return uncompiled(SGD)(given, rate, options.momentum, weight_decay=decay, fused=fused or None)
        case "adam":
            return uncompiled(Adam)(given, rate, weight_decay=decay, fused=fused or None)
        case "adamw":
            return uncompiled(AdamW)(given, rate, weight_decay=decay, fused=fused or None)


def _count(optimiser: Optimizer, *_: object) -> None:
    """Count a step among the changes of its weights, which some leave out: what was known of them is no more."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            increment_version(parameter)


class ElasticOptimisers:
    """A factory of optimisers whose steps move each unit of one engram by its elasticity: w = old + rate x (new - old).

    That covers incoming weights, biases and the parameters of normalisation. Heads move freely.

    Parameters
    ----------
    context
        Says how the optimiser itself is made.
    rates
        Of every unit.
    blocked
        Weights that are set back to zero after every step.
    """

    def __init__(self, context: LearnContext, engram: Engram, rates: Rates, blocked: Blocked | None = None) -> None:
        self._context = context
        self._slow: list[tuple[nn.Parameter, Tensor]] = []
        self._zero: list[tuple[Tensor, Tensor]] = []
        for node in engram.layout.nodes:
            block, rate = engram.block(node), rates[node.layer]
            if not isinstance(block, DenseBlock | ConvBlock):
                continue
            weight = weight_of(block)
            if bool((rate < 1).any()):
                for parameter in block.parameters():
                    shape = (-1, *[1] * (parameter.ndim - 1))
                    self._slow.append((parameter, rate.to(parameter.device).reshape(shape)))  # (own units, 1, ...)
            if blocked is not None and bool(blocked[node.name].any()):
                self._zero.append((weight, spread(blocked[node.name], weight)))
        if blocked is not None and HEAD in blocked:
            self._zero.append((engram.head.weight, blocked[HEAD].to(engram.head.weight.device)))

    def __call__(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimiser = create_optimiser(self._context, parameters)
        before: list[Tensor] = []

        def remember(*_: object) -> None:
            before[:] = [parameter.detach().clone() for parameter, _ in self._slow]

        @torch.no_grad()
        def restrain(*_: object) -> None:
            for (parameter, rate), old in zip(self._slow, before, strict=True):
                follow(old, parameter, rate)
                parameter.copy_(old)
            for weight, blocked in self._zero:
                weight.masked_fill_(blocked, 0.0)

        if self._slow or self._zero:
            optimiser.register_step_pre_hook(remember)
            optimiser.register_step_post_hook(restrain)
        return optimiser
