"""Relevance signatures: which units spoke for an answer, at the few places that matter most to a task.

After ReReLRP (arXiv 2502.10789): exemplars are chosen by herding, and of each only the values of largest mean relevance
are kept, never the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def herded(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices (at most `count`,) of exemplars whose running mean follows the mean of their class.

    Each class gives its share, in the order in which herding finds them (Welling 2009; Rebuffi et al. 2017, iCaRL,
    algorithm 4): the next exemplar is the one that brings the mean of the chosen nearest to the class mean. Features
    are brought to unit length first.

    Parameters
    ----------
    features
        (N, F).
    labels
        (N,) int64.
    """
    unit = F.normalize(features.double(), dim=1)  # (N, F)
    classes = torch.unique(labels).tolist()
    chosen = []
    for place, label in enumerate(classes):
        members = (labels == label).nonzero()[:, 0]
        share = count // len(classes) + (place < count % len(classes))
        chosen.append(members[_herd(unit[members], min(share, len(members)))])
    return torch.cat(chosen)


def _herd(unit: Tensor, count: int) -> Tensor:
    """Indices (count,) into rows of unit length (or zero)."""
    mean, total = unit.mean(0), torch.zeros_like(unit[0])
    lengths = unit.square().sum(1)  # (n,): 1, or 0 for rows of zeros
    taken = torch.zeros(len(unit), dtype=torch.bool)
    chosen = []
    for number in range(1, count + 1):
        # |number * mean - total - row|^2, without what all rows have in common
        far = lengths - 2 * (unit @ (number * mean - total))  # (n,)
        best = int(far.masked_fill(taken, torch.inf).argmin())
        taken[best] = True
        total = total + unit[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64)


def most_relevant(relevance: Tensor, count: int) -> Tensor:
    """Indices (at most `count`,), ascending, of the columns of largest mean relevance (N, units); ties to the first."""
    order = relevance.double().mean(0).sort(descending=True, stable=True).indices
    return order[:count].sort().values


def normalised(relevance: Tensor) -> Tensor:
    """Relevance (B, units) of one layer with magnitudes that sum to 1 for each image; zeros stay zeros."""
    return relevance / relevance.abs().sum(1, keepdim=True).clamp_min(1e-12)


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
