"""Training a classifier on maps of new images and on maps recalled from memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.featuremaps import Classifier
from engram.options import LearnOptions
from engram.progress import Reporter
from engram.training import STEPS_PER_EPOCH, OptimiserFactory, Run, batches, optimiser_of

Maps = Callable[[Tensor], Tensor]
"""Gives maps (B, channels, places) for indices (B,); it may augment images, and so give others each time."""


@dataclass(frozen=True)
class Fresh:
    """The new task's examples as maps.

    Parameters
    ----------
    labels
        (N,): outputs of the classifier.
    """

    maps: Maps
    labels: Tensor

    @property
    def classes(self) -> int:
        return int(torch.bincount(self.labels).count_nonzero())


@dataclass(frozen=True)
class Recalled:
    """What memory gives: maps (M, channels, places) and labels (M,); M is 0 when there is nothing to remember."""

    maps: Tensor
    labels: Tensor

    @property
    def classes(self) -> int:
        return int(torch.bincount(self.labels).count_nonzero())


def train(
    classifier: Classifier,
    fresh: Fresh,
    recalled: Recalled,
    options: LearnOptions,
    run: Run,
    generator: torch.Generator,
    reporter: Reporter,
    optimiser: OptimiserFactory | None = None,
) -> None:
    """Train in place for `run.epochs` over the fresh examples.

    Every step sees as many recalled maps as fresh ones, drawn anew each time. The two losses are weighted by their
    numbers of classes, so that every class counts the same however many maps it has. There is no early stopping: what
    is held out is of the new task alone, and would call the forgetting of all others an improvement.
    """
    device = classifier.head.weight.device
    parameters = list(classifier.parameters())
    made = optimiser(parameters) if optimiser else optimiser_of(options, parameters)
    size = min(options.batch_size, max(8, len(fresh.labels) // STEPS_PER_EPOCH))
    per_epoch = math.ceil(len(fresh.labels) / size)
    share = recalled.classes / (recalled.classes + fresh.classes)
    pool = Balanced(recalled.labels, generator)
    classifier.train()
    step, running = 0, 0.0
    for epoch in range(1, run.epochs + 1):
        for chosen in batches(len(fresh.labels), size, generator):
            for group in made.param_groups:
                group["lr"] = run.rate(step, per_epoch)
            maps, labels = fresh.maps(chosen).to(device), fresh.labels[chosen].to(device)
            old = pool.draw(len(chosen))
            logits = classifier(torch.cat([maps, recalled.maps[old].to(device)]))  # (B + old, classes)
            loss = (1 - share) * F.cross_entropy(logits[: len(maps)], labels, label_smoothing=options.label_smoothing)
            if share:
                past = recalled.labels[old].to(device)
                loss = loss + share * F.cross_entropy(
                    logits[len(maps) :], past, label_smoothing=options.label_smoothing
                )
            made.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            made.step()
            running = float(loss.detach()) if step == 0 else 0.9 * running + 0.1 * float(loss.detach())
            step += 1
            reporter.report(run.phase, run.within(step / (per_epoch * run.epochs)), epoch=epoch, loss=running)
    classifier.eval()


class Balanced:
    """Draws indices so that every class is drawn as often, with replacement."""

    def __init__(self, labels: Tensor, generator: torch.Generator) -> None:
        self._generator = generator
        counts = torch.bincount(labels)
        self._weights = 1.0 / counts[labels]  # (M,)

    def draw(self, count: int) -> Tensor:
        if not len(self._weights):
            return torch.zeros(0, dtype=torch.int64)
        return torch.multinomial(self._weights, count, replacement=True, generator=self._generator)


@torch.no_grad()
def logits_of(classifier: Classifier, maps: Maps, count: int, reporter: Reporter) -> Tensor:
    """(N, classes) on the CPU, for `count` maps given by their indices."""
    device = classifier.head.weight.device
    parts = []
    for chosen in batches(count, 512):
        reporter.check()
        parts.append(classifier(maps(chosen).to(device)).cpu())
    return torch.cat(parts)
