"""A new task's images as the commons see them: exact sums, and the features of those that are judged."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from engram.context import LearnContext
from engram.data.examples import EVALUATION_BATCH, Examples, batches
from engram.methods.eidetic.staged.shown_examples import ShownExamples
from engram.nn.commons import Commons
from engram.recognition.staged.joined.joined_sums import JoinedSums
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.score_space import best
from engram.recognition.staged.stage_one import StageOne
from engram.recognition.staged.task_evidence import MOST_SCORED

LOOKING = 0.1
"""Share of the first phase that is told of as done when the images were looked at; what is told never falls."""

WAITING = 2**25
"""Bytes of features that are added to sums at a time."""


@dataclass(frozen=True)
class SeenTask:
    """What the commons see of a task."""

    sums: JoinedSums
    """Over the images that are learned from."""
    features: Tensor
    """(n, F): of some of these, spread over them."""
    labels: Tensor
    """(n,)."""
    held_out: Tensor
    """(M, F)."""
    masses: tuple[float, ...]
    """For each earlier task the mean probability that stage one gave it."""
    shown: tuple[Examples, Examples]
    """What engrams read of the images to learn from, and of those held out: these themselves, or a network's maps."""

    def all_sums(self, held_out: Examples) -> JoinedSums:
        """Over the held-out images as well: they have served their purpose, and exact sums only gain by them."""
        return self.sums.plus(self.held_out, held_out.labels)

    def regressions(self, commons: Commons) -> list[Tensor] | None:
        """(F + 1, classes) of each commons, from the task's own sums; None where a small ridge does for heads."""
        if not any(ridges.repeating for ridges in commons.ridges):
            return None
        totals = JoinedTotals.empty(commons.widths, commons.steps).plus("", self.sums)
        return [best(*pair).weights.float() for pair in zip(totals.each, commons.ridges, strict=True)]

    def judged(self, held_out: Examples) -> tuple[Tensor, Tensor]:
        """Features and labels of all images that are judged, the held-out ones last."""
        return torch.cat([self.features, self.held_out]), torch.cat([self.labels, held_out.labels])


@dataclass
class _Summing:
    """Sums that images are added to many at a time: each addition goes through the whole of the Gram matrix."""

    sums: JoinedSums
    _waiting: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Add images: features (n, F), labels (n,)."""
        self._waiting.append((features, labels))
        if sum(given.nbytes for given, _ in self._waiting) >= WAITING:
            self.sums = self.whole()
            self._waiting = []

    def whole(self) -> JoinedSums:
        """The sums over all that was added."""
        if not self._waiting:
            return self.sums
        features, labels = zip(*self._waiting, strict=True)
        return self.sums.plus(torch.cat(features), torch.cat(labels))


@torch.no_grad()
def look(
    commons: Commons, train: Examples, held_out: Examples, first: StageOne | None, context: LearnContext
) -> SeenTask:
    """Look at a task's images through the commons, and at what stage one makes of them so far.

    Raises
    ------
    Cancelled
    """
    reporter, seeing = context.reporter, commons.to(context.device)
    summing = _Summing(JoinedSums.empty(commons.widths, len(train.classes), commons.steps))
    shown = ShownExamples.of(seeing, train, context)
    apart = min(len(held_out), MOST_SCORED // 2)
    wanted = torch.zeros(len(train), dtype=torch.bool)
    wanted[torch.linspace(0, len(train) - 1, min(len(train), MOST_SCORED - apart)).long()] = True
    features, labels, masses, done = [], [], torch.zeros(0 if first is None else len(first.sizes)), 0
    for chosen in batches(len(train), EVALUATION_BATCH):
        seen = shown.see(chosen)
        summing.add(seen, train.labels[chosen])
        features.append(seen[wanted[chosen]])
        labels.append(train.labels[chosen][wanted[chosen]])
        if first is not None:
            masses += first(seen).log_tasks.exp().sum(0)
        done += len(chosen)
        reporter.report("training", LOOKING * done / len(train))
    beside = ShownExamples.of(seeing, held_out, context)
    judged = [beside.see(chosen) for chosen in batches(len(held_out), EVALUATION_BATCH)]
    reporter.check()
    shares = (masses / len(train)).tolist()
    both = shown.examples, beside.examples
    return SeenTask(summing.whole(), torch.cat(features), torch.cat(labels), torch.cat(judged), tuple(shares), both)
