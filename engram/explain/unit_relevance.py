"""Relevance of the units of one engram, by layer-wise relevance propagation through a private copy."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.data.examples import Examples, batches
from engram.explain.rules import private_copy, relevance_rules
from engram.nn.layout import Layout, Node
from engram.nn.network import Engram, Joined, pixels

AT_ONCE = 128
"""Images that relevance is propagated for together: it keeps the maps of all layers."""


def scored_nodes(layout: Layout) -> list[Node]:
    """The nodes at which units are scored: those that rectify. Branches of a residual sum are scored at the sum."""
    return [node for node in layout.nodes if node.rectify]


def propagated_relevance(
    private: Engram,
    images: Tensor,
    explained: Callable[[Tensor], Tensor],
    joined: Joined | None = None,
    *,
    seeded: bool = True,
    average: bool = False,
) -> list[tuple[str, Tensor]]:
    """Relevance of each unit for one logit, by the epsilon rule in dense layers and z+ in convolutions.

    What rule holds at the image makes no difference here: relevance is read off before it.

    Parameters
    ----------
    private
        What `private_copy` made, for nobody else to use at the same time: rules change a module while they run.
    images
        (B, C, H, W) float32 in [0, 1].
    explained
        Chooses from logits (B, classes) the one that is explained for each image, (B,).
    joined
        What earlier owners put out for these images; by default the engram is the first of its stack.
    seeded
        Whether the logit itself is shared out among the units; otherwise 1 is, whatever the logit.
    average
        Whether relevance is averaged over the places of a map instead of added up.

    Returns
    -------
    The layer and the relevance (B, own units) of each of the `scored_nodes`, on the images' device; where `joined` asks
    for gradients, also (B, units read) of each of its nodes, under `earlier`.
    """
    nodes, layout = scored_nodes(private.layout), private.layout
    watch: dict[str, Tensor] = {}
    given = images.detach().requires_grad_(True)  # relevance needs a graph, and the copy has no trainable weights
    read = {name: values for name, values in (joined or {}).items() if values.requires_grad}
    with relevance_rules(private), torch.enable_grad():
        logit = explained(private.logits(private(given, joined or {}, watch)))
        start = logit.detach() if seeded else torch.ones_like(logit)
        carried = torch.autograd.grad(logit, [*(watch[node.name] for node in nodes), *read.values()], start)
    own = [(node.layer, over_places(part, average=average)) for node, part in zip(nodes, carried, strict=False)]
    return own + [
        (earlier(layout.node(name).layer), read_places(layout, layout.node(name), part, average=average))
        for name, part in zip(read, carried[len(nodes) :], strict=True)
    ]


def earlier(layer: str) -> str:
    """What contributions of units that are read in a layer, instead of the own ones, are found under."""
    return f"earlier {layer}"


def read_places(layout: Layout, node: Node, values: Tensor, *, average: bool) -> Tensor:
    """As `over_places`, for what is read of a node, (B, values read, ...) -> (B, units read).

    Contributions pass through pooling as they are. An average is therefore over the places of the map that was pooled,
    so that a unit counts the same whether it is scored there, as own ones are, or where it is read.
    """
    summed = values.reshape(len(values), values.shape[1] // node.per_unit, -1).sum(2)  # (B, units read)
    origin = node
    while not origin.rectify:
        origin = layout.node(origin.sources[0])
    height, width = origin.size or (1, 1)
    return summed / (height * width) if average else summed


def over_places(values: Tensor, *, average: bool) -> Tensor:
    """(B, units, ...) -> (B, units): the sum, or the average, over the places of a map; vectors have none."""
    if values.ndim == 2:
        return values
    flat = values.flatten(2)  # (B, units, places)
    return flat.mean(2) if average else flat.sum(2)


def true_logit(logits: Tensor, labels: Tensor) -> Tensor:
    """(B, classes) and the labels (B,) -> (B,)."""
    return logits.gather(1, labels[:, None])[:, 0]


class UnitRelevance:
    """Relevance of all units of an engram for the highest logit, normalised in each layer.

    It works on a copy that is kept, one batch at a time.

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
        with self._lock:
            return torch.cat([self._normalised(part) for part in torch.split(images, AT_ONCE)])

    def _normalised(self, images: Tensor) -> Tensor:
        if self._copy is None:
            self._copy = private_copy(self._engram, share=True)
        layers = {layer: torch.zeros(len(images), units) for layer, units in self._copy.units.items()}
        for layer, relevance in propagated_relevance(self._copy, images, lambda logits: logits.amax(1)):
            layers[layer] += relevance.cpu()
        return torch.cat([normalised(relevance) for relevance in layers.values()], 1)  # (b, units)


def relevances(
    engram: Engram, examples: Examples, reporter: Reporter, device: torch.device, size: int = AT_ONCE
) -> Iterator[dict[str, Tensor]]:
    """Relevance of each unit for the true label's logit, batch by batch: for each layer (B, units), on the CPU.

    The sum over the places of a map, averaged over the nodes of a layer: what the units of a layer have together is
    the logit, as far as the rules conserve it.
    """
    private = private_copy(engram, share=True)
    nodes = Counter(node.layer for node in scored_nodes(engram.layout))
    for indices in batches(len(examples), size):
        reporter.check()
        images, labels = pixels(examples.images[indices].to(device)), examples.labels[indices].to(device)
        found = propagated_relevance(private, images, partial(true_logit, labels=labels))
        totals = {layer: torch.zeros(len(indices), units) for layer, units in engram.units.items()}
        for layer, relevance in found:
            totals[layer] += relevance.cpu() / nodes[layer]
        yield totals


def normalised(relevance: Tensor) -> Tensor:
    """Relevance (B, units) of one layer with magnitudes that sum to 1 for each image; zeros stay zeros."""
    return relevance / relevance.abs().sum(1, keepdim=True).clamp_min(1e-12)
