"""Herding: exemplar selection as in iCaRL (one copy instead of two)."""

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


def herding(features: Tensor, count: int) -> Tensor:
    """Indices of `count` rows of features (N, F), each chosen so that the mean of those chosen is nearest to the mean.

    Any first so many of them are the best so many (iCaRL, arXiv 1611.07725, algorithm 4; rows of unit length).
    """
    rows = torch.nn.functional.normalize(features.double(), dim=1)
    mean, total = rows.mean(0), torch.zeros(rows.shape[1], dtype=torch.float64)
    taken: list[int] = []
    free = torch.ones(len(rows), dtype=torch.bool)
    lengths = rows.square().sum(1)  # (N,)
    for number in range(1, min(count, len(rows)) + 1):
        wanted = number * mean - total
        distance = lengths - 2 * rows @ wanted  # up to what is equal for all rows
        best = int(torch.where(free, distance, torch.inf).argmin())
        taken.append(best)
        free[best] = False
        total += rows[best]
    return torch.tensor(taken, dtype=torch.int64)


def order(features: Tensor, labels: Tensor, keep: str, count: int, generator: torch.Generator) -> Tensor:
    """Indices of at most `count` examples of each class, the ones to keep longest first: by `herding`, or at random.

    At random, any first so many are a sample without favour, as a reservoir holds.
    """
    chosen: list[Tensor] = []
    for label in _distinct(labels):
        members = (labels == label).nonzero().flatten()
        if keep == "herding":
            chosen.append(members[herding(features[members], count)])
        else:
            chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return torch.cat(chosen)


def _distinct(labels: Tensor) -> list[int]:
    """The labels that occur, ascending."""
    return torch.bincount(labels.long()).nonzero().flatten().tolist()
