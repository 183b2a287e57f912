"""Training of a classifier on maps of new images and on maps recalled from memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engram.checkpointing.journal import JournalEntry
from engram.checkpointing.progress import Reporter
from engram.config.options import LearnOptions
from engram.context import LearnContext
from engram.data.examples import batches
from engram.methods.sharc.feature_maps import Classifier
from engram.training.optimisers import create_optimiser
from engram.training.state import TrainingState
from engram.training.trainer import STEPS_PER_EPOCH, TrainingPhase

Maps = Callable[[Tensor], Tensor]
"""Gives maps (B, channels, places) for indices (B,); it may augment images, and so give others each time."""


@dataclass(frozen=True)
class NewMaps:
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

    @property
    def uneven(self) -> bool:
        """Whether some class has more examples than another."""
        counts = torch.bincount(self.labels)
        counts = counts[counts > 0]
        return bool((counts != counts[0]).any())


@dataclass(frozen=True)
class RecalledMaps:
    """Maps recalled from memory: maps (M, channels, places) and labels (M,); M is 0 when there is nothing to
    remember."""

    maps: Tensor
    labels: Tensor

    @property
    def classes(self) -> int:
        return int(torch.bincount(self.labels).count_nonzero())


def train(
    classifier: Classifier,
    fresh: NewMaps,
    recalled: RecalledMaps,
    phase: TrainingPhase,
    generator: torch.Generator,
    context: LearnContext,
) -> None:
    """Train in place for `run.epochs` over the fresh examples.

    Every step sees as many recalled maps as fresh ones, drawn anew each time. The two losses are weighted by their
    numbers of classes, so that every class counts the same however many maps it has. There is no early stopping: what
    is held out is of the new task alone, and would call the forgetting of all others an improvement.
    """
    entry = context.reporter.journal.entry(phase.name)
    if entry.outcome is None:
        state = TrainingState(classifier, create_optimiser(context, classifier.parameters()), generator)
        if entry.standing is not None:
            state.restore(entry.standing)
        _run_epochs(state, entry, ReplayLoss(classifier, fresh, recalled, context.options, generator), phase, context)
        trained = {"classifier": copy.deepcopy(classifier.state_dict()), "curve": state.curve}
        entry.finish({**trained, "generator": generator.get_state()})
    classifier.load_state_dict(entry.outcome["classifier"])
    generator.set_state(entry.outcome["generator"])
    context.reporter.journal.draw(phase.name, entry.outcome["curve"])
    classifier.eval()


def _run_epochs(
    state: TrainingState,
    entry: JournalEntry,
    replay: ReplayLoss,
    phase: TrainingPhase,
    context: LearnContext,
) -> None:
    """The epochs that are left."""
    options = context.options
    count = len(replay.fresh.labels)
    size = min(options.batch_size, max(8, count // STEPS_PER_EPOCH))
    per_epoch = math.ceil(count / size)
    state.module.train()
    while state.epoch < phase.epochs:
        labels = replay.fresh.labels if context.recipe > 1 and replay.fresh.uneven else None
        for chosen in state.batches(count, size, labels):
            for group in state.optimiser.param_groups:
                group["lr"] = phase.rate(state.step, per_epoch, options.schedule)
            loss = replay.loss(chosen)
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            state.optimiser.step()
            state.stepped(float(loss.detach()))
            entry.pause(state.state)
            within = phase.within(state.step / (per_epoch * phase.epochs))
            context.reporter.report(phase.name, within, epoch=state.epoch + 1, loss=state.loss)
        state.turn()


class ReplayLoss:
    """The loss of fresh maps together with as many recalled ones."""

    def __init__(
        self,
        classifier: Classifier,
        fresh: NewMaps,
        recalled: RecalledMaps,
        options: LearnOptions,
        generator: torch.Generator,
    ) -> None:
        self.classifier, self.fresh, self.recalled = classifier, fresh, recalled
        self._smoothing = options.label_smoothing
        self._share = recalled.classes / (recalled.classes + fresh.classes)
        self._pool = BalancedSampler(recalled.labels, generator)

    def loss(self, chosen: Tensor) -> Tensor:
        """() of the fresh maps at these indices."""
        device = self.classifier.head.weight.device
        maps, labels = self.fresh.maps(chosen).to(device), self.fresh.labels[chosen].to(device)
        old = self._pool.draw(len(chosen))
        logits = self.classifier(torch.cat([maps, self.recalled.maps[old].to(device)]))  # (B + old, classes)
        new = F.cross_entropy(logits[: len(maps)], labels, label_smoothing=self._smoothing)
        if not self._share:
            return new
        past = self.recalled.labels[old].to(device)
        known = F.cross_entropy(logits[len(maps) :], past, label_smoothing=self._smoothing)
        return (1 - self._share) * new + self._share * known


class BalancedSampler:
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
