"""Unit scores: how much a task would miss each of its candidate units."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.examples import Examples, batches
from engram.explain.rules import relevance_rules
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.layout import Node
from engram.nn.network import Engram, Network, pixels

Scores = Mapping[str, Tensor]
"""For each layer one non-negative number per own unit, (own units,), the mean over the layer being 1."""

SCORED_IMAGES = 1024
"""Gradient scores settle within a few hundred images; more only costs time."""


def score_units(
    kind: str,
    network: Network,
    engram: Engram,
    examples: Examples,
    generator: torch.Generator,
    reporter: Reporter,
    device: torch.device,
) -> Scores:
    """Score the units of a trained candidate.

    `l1` and `l2` are norms of a unit's incoming weights. `taylor` is the mean absolute product of activation and
    gradient (Molchanov et al. 2017, eq. 8), `lrp` the mean absolute relevance (Yeom et al. 2021), both of the true
    logit's *margin* over the others (of the true logit, for `lrp`): the gradient of a converged loss underflows, the
    margin's does not. Space is averaged before the absolute value is taken. `random` is the control.
    """
    match kind:
        case "l1" | "l2":
            raw = _weight_norms(engram, 1 if kind == "l1" else 2)
        case "taylor":
            raw = _gradients(network, engram, examples, generator, reporter, device, _activation_times_gradient, None)
        case "lrp":
            raw = _gradients(network, engram, examples, generator, reporter, device, _relevance, relevance_rules)
        case _:
            raw = {layer: torch.rand(units, generator=generator) for layer, units in engram.units.items()}
    return {layer: score / score.mean().clamp_min(1e-30) for layer, score in raw.items()}


def _weight_norms(engram: Engram, order: int) -> dict[str, Tensor]:
    powers = {layer: torch.zeros(units) for layer, units in engram.units.items()}
    for node in engram.layout.nodes:
        block = engram.block(node)
        if isinstance(block, DenseBlock | ConvBlock):
            weight = (block.linear if isinstance(block, DenseBlock) else block.conv).weight.detach().cpu()
            powers[node.layer] += weight.flatten(1).abs().pow(order).mean(1)  # (own units,)
    return {layer: power.pow(1 / order) for layer, power in powers.items()}


def _activation_times_gradient(activation: Tensor, gradient: Tensor) -> Tensor:
    return activation * gradient


def _relevance(activation: Tensor, gradient: Tensor) -> Tensor:
    return gradient  # under the rules of LRP the backward pass carries relevance itself


def _is_scored(node: Node) -> bool:
    """Where a unit shows: its rectified output. The branches of a residual sum show in the sum."""
    return node.rectify


def _gradients(
    network: Network,
    engram: Engram,
    examples: Examples,
    generator: torch.Generator,
    reporter: Reporter,
    device: torch.device,
    contribution: Callable[[Tensor, Tensor], Tensor],
    rules: Callable[[Engram], AbstractContextManager[Engram]] | None,
) -> dict[str, Tensor]:
    scored = [node for node in engram.layout.nodes if _is_scored(node)]
    totals = {layer: torch.zeros(units) for layer, units in engram.units.items()}
    chosen = torch.randperm(len(examples), generator=generator)[:SCORED_IMAGES]
    sample = examples.subset(chosen)
    with nullcontext(engram) if rules is None else rules(engram) as observed:
        observed.eval()
        for indices in batches(len(sample), 128):
            reporter.check()
            images, labels = pixels(sample.images[indices].to(device)), sample.labels[indices].to(device)
            with torch.no_grad():
                joined = network.prefix(images)
            watch: dict[str, Tensor] = {}
            images.requires_grad_(True)  # relevance needs a graph, and the copy under rules has no trainable weights
            logits = observed.logits(observed(images, joined, watch))  # (B, classes)
            target = _true_logit(logits, labels) if rules is not None else _margin(logits, labels)
            activations = [watch[node.name] for node in scored]
            gradients = torch.autograd.grad(target.sum(), activations)
            for node, activation, gradient in zip(scored, activations, gradients, strict=True):
                each = contribution(activation, gradient).detach()  # (B, own units, ...)
                each = each.flatten(2).mean(2) if each.ndim > 2 else each  # (B, own units)
                totals[node.layer] += each.abs().sum(0).cpu()
    return totals


def _true_logit(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]  # (B,)


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,): the true logit minus the soft maximum of the others."""
    true = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return _true_logit(logits, labels) - logits.masked_fill(true, -torch.inf).logsumexp(1)
