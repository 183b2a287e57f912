"""Propagation by autograd under zennit's hooks: of gradients, and plainly of relevance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from engram.explain.preparation import feeds_sum, linear_names, reads_image
from engram.explain.rules import GRADIENTS, composite_of
from engram.nn.network import Engram, Joined
from engram.nn.reads import gathered


def hooked(
    reach: Sequence[Engram], nodes: Mapping[str, Collection[str]], given: Tensor, target: int, composite: str
) -> tuple[float, Tensor]:
    """The logit of a class of the last engram, and what is carried back to pixels (1, C, H, W) in [0, 1].

    Parameters
    ----------
    reach
        Private copies of all that are computed, for nobody else to use at the same time: hooks change a module while
        they are there.
    nodes
        For each of them the names of the nodes that are computed.

    Raises
    ------
    UnknownComposite
    """
    layout, numbers = reach[-1].layout, range(len(reach))
    first, branches = (
        [name for number in numbers for name in linear_names(layout, meant, f"{number}.")]
        for meant in (reads_image, feeds_sum)
    )
    rules = composite_of(composite, first, branches)
    with nullcontext() if rules is None else rules.context(nn.ModuleList(reach)):
        return _backward(reach, nodes, given.detach().requires_grad_(True), target, seeded=composite not in GRADIENTS)


def _backward(
    reach: Sequence[Engram], nodes: Mapping[str, Collection[str]], given: Tensor, target: int, *, seeded: bool
) -> tuple[float, Tensor]:
    joined: Joined = {}
    values: dict[tuple[str, str], Tensor] = {}
    for engram in reach:
        if engram.reads is None:
            joined = engram(given, joined)
            continue
        own: dict[str, Tensor] = {}
        joined = engram(given, gathered(engram.layout, engram.reads, values), own, nodes[engram.task])
        values |= {(engram.task, name): value for name, value in own.items()}
    logits = reach[-1].logits(joined)  # (1, classes)
    seed = torch.zeros_like(logits)
    seed[0, target] = logits[0, target].detach() if seeded else 1.0
    (carried,) = torch.autograd.grad(logits, given, seed)
    return float(logits[0, target].detach()), carried.detach()
