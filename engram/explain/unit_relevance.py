"""The relevance of every unit of one sub-network for what it answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.examples import Examples, batches
from engram.explain.rules import composite_of, private_copy, relevance_rules
from engram.nn.network import Engram, pixels

AT_ONCE = 128
"""Images that relevance is propagated for together: it keeps the maps of all layers."""


class UnitRelevance:
    """Relevance by the epsilon rule in dense layers and z+ in convolutions, for the highest logit.

    What rule holds at the image (flat, in ReReLRP) makes no difference here: relevance is read off before it.
    Rules change a module while they run, so it happens on a copy, one batch at a time.

    Parameters
    ----------
    engram
        On an empty stack.
    """

    def __init__(self, engram: Engram) -> None:
        self._engram = engram
        self._copy: Engram | None = None
        self._lock = threading.Lock()

    def __call__(self, images: Tensor) -> Tensor:
        """(B, units of all layers) on the CPU, in each layer of magnitudes that sum to 1, for images (B, C, H, W)."""
        with self._lock, torch.enable_grad():
            return torch.cat([self._propagated(part) for part in torch.split(images, AT_ONCE)])

    def _propagated(self, images: Tensor) -> Tensor:
        if self._copy is None:
            self._copy = private_copy(self._engram, share=True)
        copy = self._copy
        scored = [node for node in copy.layout.nodes if node.rectify]
        composite = composite_of("epsilon_plus", (), ())
        assert composite is not None, "epsilon_plus is a zennit composite"
        watch: dict[str, Tensor] = {}
        given = images.detach().requires_grad_(True)  # relevance needs a graph, and the copy has no trainable weights
        with composite.context(copy):
            highest = copy.logits(copy(given, {}, watch)).amax(1)  # (b,)
            carried = torch.autograd.grad(highest, [watch[node.name] for node in scored], highest.detach())
        layers = {layer: torch.zeros(len(images), units) for layer, units in copy.units.items()}
        for node, relevance in zip(scored, carried, strict=True):
            layers[node.layer] += relevance.detach().flatten(2).sum(2).cpu() if relevance.ndim > 2 else relevance.cpu()
        return torch.cat([normalised(relevance) for relevance in layers.values()], 1)  # (b, units)


def relevances(
    engram: Engram, examples: Examples, reporter: Reporter, device: torch.device, size: int = 128
) -> Iterator[dict[str, Tensor]]:
    """Relevance of each unit for the true label's logit, batch by batch: for each layer (B, units), on the CPU.

    By the epsilon rule in dense layers and z+ in convolutions; the sum over space, averaged over the nodes of a layer:
    what the units of a layer have together is the logit, as far as the rules conserve it.
    """
    scored = [node for node in engram.layout.nodes if node.rectify]
    nodes = Counter(node.layer for node in scored)
    with relevance_rules(engram) as observed:
        for indices in batches(len(examples), size):
            reporter.check()
            images, labels = pixels(examples.images[indices].to(device)), examples.labels[indices].to(device)
            watch: dict[str, Tensor] = {}
            images.requires_grad_(True)  # relevance needs a graph, and the copy under rules has no trainable weights
            logits = observed.logits(observed(images, {}, watch))  # (B, classes)
            true = logits.gather(1, labels[:, None])  # (B, 1)
            carried = torch.autograd.grad(true, [watch[node.name] for node in scored], true.detach())
            totals = {layer: torch.zeros(len(indices), units) for layer, units in engram.units.items()}
            for node, relevance in zip(scored, carried, strict=True):
                each = relevance.flatten(2).sum(2) if relevance.ndim > 2 else relevance  # (B, units)
                totals[node.layer] += each.detach().cpu() / nodes[node.layer]
            yield totals


def normalised(relevance: Tensor) -> Tensor:
    """Relevance (B, units) of one layer with magnitudes that sum to 1 for each image; zeros stay zeros."""
    return relevance / relevance.abs().sum(1, keepdim=True).clamp_min(1e-12)
