"""Unit importance scores: weight norms, Taylor expansion, relevance, chance."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.examples import Examples, batches
from engram.explain.rules import private_copy
from engram.explain.unit_relevance import (
    AT_ONCE,
    earlier,
    over_places,
    propagated_relevance,
    read_places,
    scored_nodes,
    true_logit,
)
from engram.nn.batches import at_once
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.elastic import weight_of
from engram.nn.layout import IMAGE
from engram.nn.network import Engram, Joined, Network, pixels

Scores = Mapping[str, Tensor]
"""For each layer one non-negative number per unit, (own units,), the mean over the layer being 1; of an engram that
says what it reads (units read + own units,)."""

Contributions = Callable[[Tensor, Tensor, Joined], Iterable[tuple[str, Tensor]]]
"""Of images (B, C, H, W), their labels (B,) and what is read of earlier owners for them: for each scored node its
layer, and what each of its units contributes to the answer, (B, own units). If that is asked for, for each node that is
read the same of its units, (B, units read), under the name that `earlier` gives."""

KEPT = 8
"""Times the largest map that an image takes until its units are scored: maps of all layers, and their gradients."""

SCORED_IMAGES = {1: 1024, 2: 512, 3: 512}
"""By the number of learning: gradient scores settle within a few hundred images, and more only costs time."""


def score_units(
    kind: str,
    network: Network,
    engram: Engram,
    examples: Examples,
    generator: torch.Generator,
    reporter: Reporter,
    device: torch.device,
    weights: Tensor | None = None,
    most: int = SCORED_IMAGES[1],
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
    most
        Images that gradient scores are taken of, at most.
    """
    over = partial(_magnitudes, network, engram, examples, generator, reporter, device, weights, most)
    match kind:
        case "l1" | "l2":
            raw = _weight_norms(engram, 1 if kind == "l1" else 2)
        case "taylor":
            raw = over(_taylor(engram))
        case "lrp":
            raw = over(_relevance(engram))
        case _:
            raw = {name: torch.rand(units, generator=generator) for name, units in _counts(engram).items()}
    if engram.reads is not None:
        raw = {layer: torch.cat([raw[earlier(layer)], raw[layer]]) for layer in engram.units}
    return {layer: score / score.mean().clamp_min(1e-30) for layer, score in raw.items()}


def _counts(engram: Engram) -> dict[str, int]:
    """How many units are scored in each layer; those that are read are found under `earlier`."""
    if engram.reads is None:
        return engram.units
    return engram.units | {earlier(layer): units for layer, units in engram.earlier.items()}


def _weight_norms(engram: Engram, order: int) -> dict[str, Tensor]:
    powers = {layer: torch.zeros(units) for layer, units in engram.units.items()}
    for node in engram.layout.nodes:
        block = engram.block(node)
        if isinstance(block, DenseBlock | ConvBlock):
            weight = (block.linear if isinstance(block, DenseBlock) else block.conv).weight.detach().cpu()
            powers[node.layer] += weight.flatten(1).abs().pow(order).mean(1)  # (own units,)
    own = {layer: power.pow(1 / order) for layer, power in powers.items()}
    return own if engram.reads is None else own | _reading_norms(engram, order, own)


def _reading_norms(engram: Engram, order: int, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is read has no incoming weights here: a unit is scored by those that read it.

    It counts as much more or less than the mean own unit of its layer as it is read with larger or smaller weights.
    """
    powers = {layer: torch.zeros(units) for layer, units in engram.reach.items()}
    readers = [(node.sources[0], weight_of(engram.block(node))) for node in engram.layout.nodes if node.mixing]
    for source, weight in [*readers, (engram.layout.features.name, engram.head.weight)]:
        if source != IMAGE:
            origin = engram.layout.node(source)
            sizes = weight.detach().cpu().abs().pow(order).reshape(*weight.shape[:2], -1).mean((0, 2))  # (values read,)
            powers[origin.layer] += sizes.reshape(-1, origin.per_unit).mean(1)  # (units,)
    found = {}
    for layer, power in powers.items():
        norms, count = power.pow(1 / order), engram.earlier[layer]
        found[earlier(layer)] = norms[:count] / norms[count:].mean().clamp_min(1e-30) * own[layer].mean()
    return found


def _taylor(engram: Engram) -> Contributions:
    """The product of activation and gradient of the margin, averaged over the places of a map."""
    layout, nodes = engram.layout, scored_nodes(engram.layout)

    def contributions(images: Tensor, labels: Tensor, joined: Joined) -> Iterable[tuple[str, Tensor]]:
        engram.eval()
        watch: dict[str, Tensor] = {}
        margin = _margin(engram.logits(engram(images, joined, watch)), labels)  # (B,)
        activations = [watch[node.name] for node in nodes]
        read = [(layout.node(name), values) for name, values in joined.items() if values.requires_grad]
        gradients = torch.autograd.grad(margin.sum(), [*activations, *(values for _, values in read)])
        for node, activation, gradient in zip(nodes, activations, gradients, strict=False):
            yield node.layer, over_places((activation * gradient).detach(), average=True)
        for (node, activation), gradient in zip(read, gradients[len(nodes) :], strict=True):
            product = (activation * gradient).detach()
            yield earlier(node.layer), read_places(layout, node, product, average=True)

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
    weights: Tensor | None,
    most: int,
    contributions: Contributions,
) -> dict[str, Tensor]:
    """For each layer the magnitudes of what its units contribute, summed over nodes and some of the images."""
    totals = {name: torch.zeros(units) for name, units in _counts(engram).items()}
    chosen = torch.randperm(len(examples), generator=generator)[:most]
    sample = examples.subset(chosen)
    size = at_once(engram.layout, engram.reach, AT_ONCE, KEPT)
    for indices in batches(len(sample), size):
        reporter.check()
        images, labels = pixels(sample.images[indices].to(device)), sample.labels[indices].to(device)
        with torch.no_grad():
            joined = network.joined(engram, images)
        if engram.reads:
            joined = {name: values.requires_grad_(True) for name, values in joined.items()}
        for layer, each in contributions(images, labels, joined):
            sizes = each.abs() if weights is None else each.abs() * weights[labels, None]
            totals[layer] += sizes.sum(0).cpu()  # (units,)
    return totals


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,): the true logit minus the soft maximum of the others."""
    true = labels[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return true_logit(logits, labels) - logits.masked_fill(true, -torch.inf).logsumexp(1)
