"""Relevance of units over a reference set, and the fewest units that hold a task's accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engram.checkpointing.progress import Reporter
from engram.data.class_balance import image_weights
from engram.data.examples import Examples
from engram.explain.unit_relevance import relevances
from engram.nn.multihead import Kept, silenced
from engram.nn.network import Engram
from engram.training.bisection import bisect
from engram.training.importance import Scores
from engram.training.pruning import choose


def importance(
    engram: Engram, reference: Examples, reporter: Reporter, device: torch.device, *, balanced: bool = False
) -> Scores:
    """Mean absolute relevance of each unit for the true label's logit, over a reference set.

    Units compete over the whole network by it as it is. Every layer has the logit to share, so that units of narrow
    layers count for more; making the layers' means equal was measured to freeze the wrong ones, and to forget more.

    Parameters
    ----------
    balanced
        Whether the mean is over the classes instead of the images.
    """
    totals = {layer: torch.zeros(units) for layer, units in engram.units.items()}
    counted = image_weights(reference.labels, torch.ones(len(reference.classes))).float() if balanced else None
    done = 0
    for found in relevances(engram, reference, reporter, device):
        for layer, relevance in found.items():
            sizes = relevance.abs()
            if counted is not None:
                sizes = sizes * counted[done : done + len(sizes), None]
            totals[layer] += sizes.sum(0)  # (units,)
        done += len(next(iter(found.values())))
    return {layer: total / len(reference) for layer, total in totals.items()}


def relevant(
    engram: Engram,
    scores: Scores,
    always: Kept,
    floor: float,
    min_accuracy: float,
    accuracy_of: Callable[[Engram], float],
    steps: int = 8,
) -> Kept:
    """Bisect on the share of units kept, for the fewest with which the accuracy is at least `min_accuracy`.

    Parameters
    ----------
    always
        Units that are kept whatever their score.
    floor
        Share of each layer that is kept whatever the scores.
    accuracy_of
        Judges the engram with all other units silenced, on held-out examples; called `steps` times.
    """
    found: Kept = {layer: torch.ones(units, dtype=torch.bool) for layer, units in engram.units.items()}

    def holds(share: float) -> bool:
        nonlocal found
        kept = {layer: known.clone() for layer, known in always.items()}
        for layer, indices in choose(scores, share, floor).items():
            kept[layer][indices] = True
        if accuracy_of(silenced(engram, kept)) < min_accuracy:
            return False
        found = kept
        return True

    bisect(holds, steps)
    return found
