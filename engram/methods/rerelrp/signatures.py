"""Relevance signatures: the relevance of the few units that matter most to a task.

After ReReLRP (arXiv 2502.10789): exemplars are chosen by herding, and of each only the values of largest mean relevance
are kept, never the image.
"""

from __future__ import annotations

from torch import Tensor

from engram.explain.unit_relevance import normalised


def most_relevant(relevance: Tensor, count: int) -> Tensor:
    """Indices (at most `count`,), ascending, of the columns of largest mean relevance (N, units); ties to the first."""
    order = relevance.double().mean(0).sort(descending=True, stable=True).indices
    return order[:count].sort().values


def head_relevance(features: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    """The relevance (B, F) of what a head reads for the answer it gives: a_i w_ic for its class c, normalised.

    This is the epsilon rule (with epsilon 0 and the bias left out) at the last layer, and needs no backward pass.

    Parameters
    ----------
    features
        (B, F).
    weight
        (classes, F) of the head.
    logits
        (B, classes), of which the largest is explained.
    """
    return normalised(features * weight[logits.argmax(1)])
