"""Pruning to the smallest set of units that holds the task's accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.network import Engram
from engram.training.bisection import bisect
from engram.training.importance import Scores

STEP = 8
"""Wide layers keep a multiple of so many units: such shapes run faster, and a finer choice buys nothing."""


@dataclass(frozen=True)
class PrunedEngram:
    """A pruned engram, and the held-out accuracy it was accepted with."""

    engram: Engram
    accuracy: float


def choose(scores: Scores, fraction: float, floor: float) -> dict[str, Tensor]:
    """Indices of the kept units per layer, sorted, when about `fraction` of all units are to stay.

    Units compete over the whole network by their normalised score, but every layer keeps its own best `floor` share
    (at least one unit): gradient scores would otherwise empty the last layers first.
    """
    order = torch.cat(list(scores.values())).sort(descending=True).values  # (all units,)
    count = max(1, min(len(order), round(fraction * len(order))))
    threshold = float(order[count - 1])
    keep = {}
    for layer, score in scores.items():
        width = len(score)
        number = max(int((score >= threshold).sum()), math.ceil(floor * width), 1)
        if width >= 2 * STEP:
            number = min(width, math.ceil(number / STEP) * STEP)
        best = torch.topk(score, number).indices
        keep[layer] = best.sort().values
    return keep


def smallest(
    engram: Engram,
    scores: Scores,
    floor: float,
    min_accuracy: float,
    accuracy_of: Callable[[Engram], float],
    steps: int = 7,
) -> PrunedEngram | None:
    """Bisect on the share of units kept, for the narrowest engram whose accuracy is at least `min_accuracy`.

    Parameters
    ----------
    accuracy_of
        Judges a candidate, in eval mode on held-out examples; called at most `steps` times.

    Returns
    -------
    None if no narrower engram holds.
    """
    found: PrunedEngram | None = None

    def holds(share: float) -> bool:
        nonlocal found
        keep = choose(scores, share, floor)
        if all(len(kept) == engram.units[layer] for layer, kept in keep.items()):
            return True  # rounding up kept everything; only a smaller share can say anything
        narrow = engram.narrowed(keep)
        accuracy = accuracy_of(narrow)
        if accuracy < min_accuracy:
            return False
        found = PrunedEngram(narrow, accuracy)
        return True

    bisect(holds, steps)
    return found
