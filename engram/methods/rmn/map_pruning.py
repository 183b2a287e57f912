"""Search for the smallest relevance map that holds the task's accuracy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from engram.data.class_balance import image_weights
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.methods.rmn.map_learning import MapCandidate
from engram.nn.network import Engram, pixels
from engram.training.bisection import bisect
from engram.training.report import LearningReport
from engram.training.trainer import Trainer, TrainingPhase

_BISECTIONS = 7

_CLEAR = 0.1
"""A margin counts from this share of the mean margin."""


def prune(
    candidate: MapCandidate, trainer: Trainer, report: LearningReport, recover: Callable[[TrainingPhase], object]
) -> None:
    """Search for the smallest map that holds, recover, search again from there; a round that fails is taken back.

    The options' unit scores order units; weights go by their size.

    Parameters
    ----------
    candidate
        Trained and settled; changed in place.
    recover
        Trains the weights that are left.

    Raises
    ------
    Cancelled
    """
    options, validation = trainer.options, trainer.validation
    least = clear(candidate, trainer, validation) - options.tolerance
    for number in range(options.rounds):
        trainer.reporter.report("pruning", number / options.rounds, units=sum(candidate.units.values()))
        before = {name: part.clone() for name, part in candidate.state_dict().items()}
        with report.timed("pruning"):
            found = _search(candidate, trainer, validation, least)
        if not found:
            return
        share = (number / options.rounds, (number + 1) / options.rounds)
        with report.timed("recovering"):
            recover(TrainingPhase.recovering(options, share))
        if clear(candidate, trainer, validation) < least:
            candidate.load_state_dict(before)
            return


def _search(candidate: MapCandidate, trainer: Trainer, validation: Examples, least: float) -> bool:
    """Narrow the map to the smallest that holds; whether there is a smaller one."""
    start = best = candidate.alive()

    def holds(share: float) -> bool:
        nonlocal best
        candidate.revive(start)
        candidate.keep(share, trainer.options.floor * share)
        if clear(candidate, trainer, validation) < least:
            return False
        best = candidate.alive()
        return True

    smallest = bisect(holds, _BISECTIONS)
    candidate.revive(best)
    return smallest < 1.0


def clear(candidate: MapCandidate, trainer: Trainer, examples: Examples) -> float:
    """Share of the images that are answered right by a margin that counts, each class having an equal part.

    Without biases a class can die away to logits of 0, a tie that plain accuracy may take for right.
    """
    logits, labels = logits_of(candidate, examples, trainer), examples.labels[:, None]
    others = logits.scatter(1, labels, -torch.inf).amax(1)
    margins = logits.gather(1, labels)[:, 0] - others  # (M,)
    if trainer.weights is None:
        return float((margins > _CLEAR * margins.abs().mean()).double().mean())
    counted = image_weights(examples.labels, torch.ones(len(examples.classes)))  # (M,)
    return float((counted * (margins > _CLEAR * (counted * margins.abs()).mean())).mean())


def logits_of(engram: Engram, examples: Examples, trainer: Trainer) -> Tensor:
    """(M, classes) on the CPU, in eval mode, of an engram that stands on no other; raises Cancelled."""
    engram.eval()
    return trainer.reporter.journal.once("logits", lambda: _logits(engram, examples, trainer))


@torch.no_grad()
def _logits(engram: Engram, examples: Examples, trainer: Trainer) -> Tensor:
    found = []
    for chosen in batches(len(examples), EVALUATION_BATCH):
        trainer.reporter.check()
        images = pixels(examples.images[chosen].to(trainer.device))
        found.append(engram.logits(engram(images, {})).cpu())
    return torch.cat(found)
