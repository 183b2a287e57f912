"""Herding: the choice of exemplars whose mean follows the mean of their class, as in iCaRL."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def herding_order(features: Tensor, count: int) -> Tensor:
    """Indices (at most `count`,) of rows of features (N, F) whose running mean stays nearest to the mean of all rows.

    Any first so many of them are the best so many (Welling 2009; Rebuffi et al. 2017, iCaRL, arXiv 1611.07725,
    algorithm 4). Rows are brought to unit length first; of equally near ones the first is taken.
    """
    rows = F.normalize(features.double(), dim=1)  # (N, F)
    mean, total = rows.mean(0), torch.zeros(rows.shape[1], dtype=rows.dtype)
    lengths = rows.square().sum(1)  # (N,): 1, or 0 for rows of zeros
    taken = torch.zeros(len(rows), dtype=torch.bool)
    order = []
    for number in range(1, min(count, len(rows)) + 1):
        # |number * mean - total - row|^2, without what all rows have in common
        distances = lengths - 2 * (rows @ (number * mean - total))  # (N,)
        best = int(distances.masked_fill(taken, torch.inf).argmin())
        taken[best] = True
        total += rows[best]
        order.append(best)
    return torch.tensor(order, dtype=torch.int64)


def select_exemplars(features: Tensor, labels: Tensor, count: int) -> Tensor:
    """Indices (at most `count`,) of exemplars, each class giving an equal share, in the order of herding.

    Parameters
    ----------
    features
        (N, F).
    labels
        (N,) int64.
    """
    classes = distinct_labels(labels)
    chosen = []
    for place, label in enumerate(classes):
        members = (labels == label).nonzero().flatten()
        share = count // len(classes) + (place < count % len(classes))
        chosen.append(members[herding_order(features[members], share)])
    return torch.cat(chosen)


def ordered_by_class(features: Tensor, labels: Tensor, keep: str, count: int, generator: torch.Generator) -> Tensor:
    """Indices of at most `count` examples of each class, those to keep longest first.

    Parameters
    ----------
    features
        (N, F).
    labels
        (N,) integers.
    keep
        `herding`, or anything else for a random order, of which any first so many are a uniform sample, as a reservoir
        holds.
    """
    chosen = []
    for label in distinct_labels(labels):
        members = (labels == label).nonzero().flatten()
        if keep == "herding":
            chosen.append(members[herding_order(features[members], count)])
        else:
            chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


def distinct_labels(labels: Tensor) -> list[int]:
    """The labels that occur, ascending."""
    return torch.bincount(labels.long()).nonzero().flatten().tolist()
