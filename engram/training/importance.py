"""Unit importance scores: weight norms, Taylor expansion, relevance, chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.examples import Examples, batches
from engram.explain.rules import private_copy
from engram.explain.unit_relevance import AT_ONCE, over_places, propagated_relevance, scored_nodes, true_logit
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.network import Engram, Joined, Network, pixels

Scores = Mapping[str, Tensor]
"""For each layer one non-negative number per own unit, (own units,), the mean over the layer being 1."""

Contributions = Callable[[Tensor, Tensor, Joined], Iterable[tuple[str, Tensor]]]
"""Of images (B, C, H, W), their labels (B,) and what earlier owners put out for them: for each scored node its layer,
and what each of its units contributes to the answer, (B, own units)."""

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
    weights: Tensor | None = None,
) -> Scores:
    """Score the units of a trained candidate.

    `l1` and `l2` are norms of a unit's incoming weights. `taylor` is the mean absolute product of activation and
    gradient (Molchanov et al. 2017, eq. 8), `lrp` the mean absolute relevance (Yeom et al. 2021), both of the true
    logit's *margin* over the others (of the true logit, for `lrp`): the gradient of a converged loss underflows, the
    margin's does not. Space is averaged before the absolute value is taken. `random` is the control.

    Parameters
    ----------
    weights
        (classes,): what an image of each class counts; None where all count 1.
    """
    match kind:
        case "l1" | "l2":
            raw = _weight_norms(engram, 1 if kind == "l1" else 2)
        case "taylor":
            raw = _magnitudes(network, engram, examples, generator, reporter, device, _taylor(engram), weights)
        case "lrp":
            raw = _magnitudes(network, engram, examples, generator, reporter, device, _relevance(engram), weights)
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


def _taylor(engram: Engram) -> Contributions:
    """The product of activation and gradient of the margin, averaged over the places of a map."""
    nodes = scored_nodes(engram.layout)

    def contributions(images: Tensor, labels: Tensor, joined: Joined) -> Iterable[tuple[str, Tensor]]:
        engram.eval()
        watch: dict[str, Tensor] = {}
        margin = _margin(engram.logits(engram(images, joined, watch)), labels)  # (B,)
        activations = [watch[node.name] for node in nodes]
        gradients = torch.autograd.grad(margin.sum(), activations)
        for node, activation, gradient in zip(nodes, activations, gradients, strict=True):
            yield node.layer, over_places((activation * gradient).detach(), average=True)

    return contributions


def _relevance(engram: Engram) -> Contributions:
    """The relevance for the true logit, as if that were 1, averaged over the places of a map."""
    private = private_copy(engram, share=True)

    def contributions(images: Tensor, labels: Tensor, joined: Joined) -> Iterable[tuple[str, Tensor]]:
        explained = partial(true_logit, labels=labels)
        return propagated_relevance(private, images, explained, joined, seeded=False, average=True)

    return contributions


def _magnitudes(
    network: Network,
    engram: Engram,
    examples: Examples,
    generator: torch.Generator,
    reporter: Reporter,
    device: torch.device,
    contributions: Contributions,
    weights: Tensor | None,
) -> dict[str, Tensor]:
    """For each layer the magnitudes of what its units contribute, summed over nodes and some of the images."""
    totals = {layer: torch.zeros(units) for layer, units in engram.units.items()}
    chosen = torch.randperm(len(examples), generator=generator)[:SCORED_IMAGES]
    sample = examples.subset(chosen)
    for indices in batches(len(sample), AT_ONCE):
        reporter.check()
        images, labels = pixels(sample.images[indices].to(device)), sample.labels[indices].to(device)
        with torch.no_grad():
            joined = network.joined(engram, images)
        for layer, each in contributions(images, labels, joined):
            sizes = each.abs() if weights is None else each.abs() * weights[labels, None]
            totals[layer] += sizes.sum(0).cpu()  # (own units,)
    return totals


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,): the true logit minus the soft maximum of the others."""
    true = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return true_logit(logits, labels) - logits.masked_fill(true, -torch.inf).logsumexp(1)
