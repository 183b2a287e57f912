"""Pruning to the smallest set of units that holds the task's accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engram.nn.network import Engram
from engram.training.bisection import bisect
from engram.training.importance import Scores
from engram.training.reading import worth

STEP = 8
"""Wide layers keep a multiple of so many units: such shapes run faster, and a finer choice buys nothing."""


@dataclass(frozen=True)
class PrunedEngram:
    """A pruned engram, and the held-out accuracy it was accepted with."""

    engram: Engram
    accuracy: float


def choose(scores: Scores, fraction: float, floor: float, read: Mapping[str, int] | None = None) -> dict[str, Tensor]:
    """Indices of the kept units per layer, sorted, when about `fraction` of all units are to stay.

    Units compete over the whole network by their normalised score, but every layer keeps its own best `floor` share
    (at least one unit): gradient scores would otherwise empty the last layers first.

    Parameters
    ----------
    read
        How many of a layer's scores, the first ones, are of earlier owners' units: they have nothing but their score.
    """
    order = torch.cat(list(scores.values())).sort(descending=True).values  # (all units,)
    count = max(1, min(len(order), round(fraction * len(order))))
    threshold = float(order[count - 1])
    keep = {}
    for layer, both in scores.items():
        count = 0 if read is None else read[layer]
        earlier, score = both[:count], both[count:]
        width = len(score)
        number = max(int((score >= threshold).sum()), math.ceil(floor * width), 1)
        if width >= 2 * STEP:
            number = min(width, math.ceil(number / STEP) * STEP)
        best = torch.topk(score, number).indices.sort().values
        keep[layer] = torch.cat([(earlier >= threshold).nonzero()[:, 0], len(earlier) + best])
    return keep


def cut_to(engram: Engram, keep: Mapping[str, Tensor]) -> Engram:
    """The engram with only what `choose` keeps."""
    if engram.reads is None:
        return engram.narrowed(keep)
    count = engram.earlier
    own = {layer: kept[kept >= count[layer]] - count[layer] for layer, kept in keep.items()}
    return engram.narrowed(own, {layer: kept[kept < count[layer]] for layer, kept in keep.items()})


def smallest(
    engram: Engram,
    scores: Scores,
    floor: float,
    min_accuracy: float,
    accuracy_of: Callable[[Engram], float],
    steps: int = 7,
    bounded: Callable[[Engram, Mapping[str, float]], Engram] | None = None,
) -> PrunedEngram | None:
    """Bisect on the share of units kept, for the narrowest engram whose accuracy is at least `min_accuracy`.

    Of an engram that says what it reads, that competes with its own units.

    Parameters
    ----------
    accuracy_of
        Judges a candidate, in eval mode on held-out examples; called at most `steps` times. Of one under
        `min_accuracy` any number under that will do.
    bounded
        Takes what is too much from a candidate before it is judged, told what each owner that it reads is worth.

    Returns
    -------
    None if no narrower engram holds.
    """
    found: PrunedEngram | None = None
    read = None if engram.reads is None else engram.earlier
    judged: list[tuple[dict[str, Tensor], bool]] = []

    def holds(share: float) -> bool:
        nonlocal found
        keep = choose(scores, share, floor, read)
        if all(len(kept) == len(scores[layer]) for layer, kept in keep.items()):
            return True  # rounding up kept everything; only a smaller share can say anything
        for other, held in judged:  # rounding up keeps the same for several shares
            if all(kept.equal(other[layer]) for layer, kept in keep.items()):
                return held
        narrow = cut_to(engram, keep)
        if bounded is not None:
            narrow = bounded(narrow, worth(engram, scores, keep))
        accuracy = accuracy_of(narrow)
        judged.append((keep, accuracy >= min_accuracy))
        if accuracy < min_accuracy:
            return False
        found = PrunedEngram(narrow, accuracy)
        return True

    bisect(holds, steps)
    return found
