"""The training loop: one new engram on a fixed prefix, to a plateau."""

from __future__ import annotations

import copy
import math
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from engram.checkpointing.journal import JournalEntry
from engram.checkpointing.pytree import Tree
from engram.config.options import LearnOptions, Schedule
from engram.context import LearnContext, OptimiserFactory, WithContext
from engram.data.augmentation import augmented
from engram.data.class_balance import class_weights, extended
from engram.data.examples import Examples, small_classes
from engram.nn.elastic import NORM_MOMENTUM
from engram.nn.layout import Layout
from engram.nn.network import Engram, Network, channels_last, pixels
from engram.training.measuring import HOPELESS, Evaluation, KnownEvaluations, measure
from engram.training.mixed_precision import mixed
from engram.training.optimisers import create_optimiser
from engram.training.state import TrainingState

STEPS_PER_EPOCH = 20
"""Small tasks take smaller batches until an epoch has about so many steps."""

MIN_VALIDATION_IMAGES = 256
"""Images that pruning is judged by at least, where a task has so many."""

MIN_CLASS_IMAGES = 20
"""Images of each class that the plateau is judged by at least, where the largest class has so many held out."""

MOST_RECOVERED = 2048
"""Images that a pass after pruning goes over by number 2: what is left needs to settle, and has learned already."""

WHOLE = (0.0, 1.0)
"""The share of a phase that is the whole of it."""


def norms(engram: Engram) -> list[nn.BatchNorm2d]:
    """The engram's normalisations."""
    return [module for module in engram.modules() if isinstance(module, nn.BatchNorm2d)]


@dataclass(frozen=True)
class TrainingPhase:
    """A phase of training: its name and share of the progress, epochs, learning rate and patience."""

    name: str
    share: tuple[float, float]
    """Which part of the phase this run is, from and to."""
    epochs: int
    peak: float
    """The highest learning rate."""
    patience: int
    untrained: bool = False
    """Whether the network has learned nothing yet."""
    most: int | None = None
    """Images that an epoch goes over at most."""

    @classmethod
    def to_plateau(cls, options: LearnOptions, share: tuple[float, float] = WHOLE, name: str = "training") -> Self:
        """The first training of a network: as long and as fast as the options say."""
        return cls(name, share, options.epochs, options.learning_rate, options.patience, untrained=True)

    @classmethod
    def recovering(cls, options: LearnOptions, share: tuple[float, float] = WHOLE, most: int | None = None) -> Self:
        """The fine-tuning after pruning: at a quarter of the rate, without early stopping."""
        epochs = options.recovery_epochs
        return cls("recovering", share, epochs, options.learning_rate / 4, epochs, most=most)

    def rate(self, step: int, per_epoch: int, schedule: Schedule) -> float:
        """The learning rate of a step: after a short warm-up annealed by a cosine, or always the highest."""
        if schedule == "constant":
            return self.peak
        total = self.epochs * per_epoch
        warm = max(1, min(per_epoch, total // 10))
        return self.peak * min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / total)) + 1e-3)

    def within(self, fraction: float) -> float:
        """How much of the phase is done when so much of the run is."""
        return self.share[0] + (self.share[1] - self.share[0]) * fraction


@dataclass
class BestState(TrainingState):
    """A training state that returns to its best epoch."""

    best: Evaluation = field(default_factory=lambda: Evaluation(math.inf, 0.0))
    best_state: dict[str, Tensor] = field(default_factory=dict)
    waited: int = 0
    """Epochs since the best one."""

    def record(self, now: Evaluation) -> None:
        """What was measured at the beginning, or after an epoch."""
        if not self.best_state or now.loss < self.best.loss:
            self.best, self.best_state, self.waited = now, copy.deepcopy(self.module.state_dict()), 0
        else:
            self.waited += 1

    def state(self) -> dict[str, Tree]:
        best = (astuple(self.best), self.best_state, self.waited)
        return {**super().state(), "best": best}

    def restore(self, state: dict[str, Tree]) -> None:
        super().restore(state)
        measured, self.best_state, self.waited = state["best"]
        self.best = Evaluation(*measured)


@dataclass
class Trainer(WithContext):
    """The training loop of one engram on top of a network that cannot change.

    Earlier owners run in eval mode without autograd, and the optimiser is handed the new engram's parameters alone:
    neither momentum, nor weight decay, nor normalisation statistics can reach an owned unit.
    """

    network: Network
    train: Examples
    held_out: Examples
    context: LearnContext
    generator: torch.Generator
    known: KnownEvaluations | None = None
    """What need not be measured again; None where an engram's answers depend on more than its own tensors."""

    @classmethod
    def alone(cls, layout: Layout, train: Examples, held_out: Examples, context: LearnContext) -> Self:
        """The trainer of an engram that stands on no other, drawing from the context's seed."""
        return cls(Network(layout), train, held_out, context, context.generator())

    def with_optimiser(self, optimiser: OptimiserFactory | None) -> Self:
        """The same trainer with optimisers of this kind."""
        return replace(self, context=replace(self.context, optimiser=optimiser))

    @property
    def batch_size(self) -> int:
        """Images per step: as the options say, or fewer for small tasks, which would otherwise see too few steps."""
        return min(self.options.batch_size, max(8, len(self.train) // STEPS_PER_EPOCH))

    @cached_property
    def weights(self) -> Tensor | None:
        """(classes,): what an image of each class counts, so that classes count alike; None where every image counts 1.

        That is so for classes of equally many images, and by the first recipe. Training does not weigh images: it
        draws those of small classes more often.
        """
        found = class_weights(self.train) if self.context.recipe > 1 else None
        return None if found is None else found.to(self.device)

    @cached_property
    def few(self) -> bool:
        """Whether some class has so few images, beside another, that held-out loss tells little of it.

        Training then goes on for half of the epochs without a better one, and never returns to where it began: a
        network that is unsure of everything has a smaller loss than one that is too sure for a while.
        """
        return self.weights is not None and bool(small_classes(self.train))

    @cached_property
    def plateau(self) -> Examples:
        """What the plateau is judged by: the held-out images, and some that were learned from of classes that have
        but a few."""
        if self.weights is None:
            return self.held_out
        return extended(self.held_out, self.train, min(MIN_CLASS_IMAGES, max(self.held_out.counts())))

    @cached_property
    def validation(self) -> Examples:
        """What pruning is judged by: the held-out images, and for small tasks some that were learned from.

        A handful of held-out images would call almost any remnant as good as the whole.
        """
        if self.weights is not None:
            return extended(self.held_out, self.train, math.ceil(MIN_VALIDATION_IMAGES / len(self.train.classes)))
        missing = MIN_VALIDATION_IMAGES - len(self.held_out)
        if missing <= 0:
            return self.held_out
        some = self.train.subset(torch.linspace(0, len(self.train) - 1, min(missing, len(self.train))).long())
        images = torch.cat([self.held_out.images, some.images])
        return Examples(images, torch.cat([self.held_out.labels, some.labels]), self.train.classes)

    def fit(self, engram: Engram, phase: TrainingPhase) -> Evaluation:
        """Train until the held-out loss has not improved for `run.patience` epochs, then return to the best epoch."""
        entry = self.reporter.journal.entry(phase.name)
        if entry.outcome is None:
            done = self._trained(engram, phase, entry)
            trained = {"best": astuple(done.best), "engram": done.best_state, "curve": done.curve}
            entry.finish({**trained, "generator": self.generator.get_state()})
        engram.load_state_dict(entry.outcome["engram"])
        self.generator.set_state(entry.outcome["generator"])
        self.reporter.journal.draw(phase.name, entry.outcome["curve"])
        engram.eval()
        best = Evaluation(*entry.outcome["best"])
        if self.known is not None and best != HOPELESS:
            self.known.keep(engram, self.plateau, best)
        return best

    def _trained(self, engram: Engram, phase: TrainingPhase, entry: JournalEntry) -> BestState:
        """What was measured in the best epoch, and the engram's state then."""
        state = BestState(engram, create_optimiser(self.context, engram.parameters()), self.generator)
        patience = phase.patience
        if self.few:
            patience = max(patience, math.ceil(phase.epochs / 2))
        if entry.standing is None:
            state.record(HOPELESS if self.few and phase.untrained else self._judge(engram, self.plateau))
        else:
            state.restore(entry.standing)
        while state.epoch < phase.epochs and state.waited < patience:
            self._epoch(engram, state, phase, entry)
            measured = self._judge(engram, self.plateau)
            state.record(measured)
            state.turn(measured.loss, measured.accuracy)
            entry.pause(state.state)
        return state

    def _epoch(self, engram: Engram, state: BestState, phase: TrainingPhase, entry: JournalEntry) -> None:
        """What is left of an epoch."""
        size, units = self.batch_size, sum(engram.units.values())
        per_epoch = math.ceil(min(len(self.train), phase.most or len(self.train)) / size)
        engram.train()
        drawn = None if self.weights is None else self.train.labels
        for chosen in state.batches(len(self.train), size, drawn, per_epoch):
            for group in state.optimiser.param_groups:
                group["lr"] = phase.rate(state.step, per_epoch, self.options.schedule)
            state.stepped(self._step(engram, state.optimiser, chosen, state.step))
            entry.pause(state.state)
            within = phase.within(state.step / (per_epoch * phase.epochs))
            self.reporter.report(
                phase.name, within, epoch=state.epoch + 1, loss=state.loss, accuracy=state.best.accuracy, units=units
            )

    def accuracy(self, engram: Engram, examples: Examples) -> float:
        """The share of examples that an engram, once it is moved to the trainer's device, answers right."""
        engram.to(self.device)
        measured = self._judge if self.weights is None else self._measured
        return self.reporter.journal.once("accuracy", lambda: measured(engram, examples).accuracy)

    def validated(self, engram: Engram, least: float = 0.0) -> float:
        """What pruning holds: the accuracy on `validation`, of which each class has an equal part.

        Of one that is under `least` it is a number under that, as `measure` gives it.
        """
        engram.to(self.device)
        return self.reporter.journal.once("accuracy", lambda: self._judge(engram, self.validation, least).accuracy)

    def trained_accuracy(self, engram: Engram, best: Evaluation) -> float:
        """The held-out accuracy of a trained engram, `best` being what `fit` gave."""
        return best.accuracy if self.weights is None else self.accuracy(engram, self.held_out)

    def _judge(self, engram: Engram, examples: Examples, least: float = 0.0) -> Evaluation:
        found = None if self.known is None else self.known.of(engram, examples)
        if found is None:
            found = self._measured(engram, examples, balanced=self.weights is not None, least=least)
            if self.known is not None and found.loss < math.inf:
                self.known.keep(engram, examples, found)
        return found

    def _measured(
        self, engram: Engram, examples: Examples, *, balanced: bool = False, least: float = 0.0
    ) -> Evaluation:
        judged = partial(measure, self.network, engram, examples, self.context.placed, self.reporter)
        return judged(balanced=balanced, least=least, served=self.context.learning > 1)

    def _augmented(self, images: Tensor) -> Tensor:
        return augmented(images, self.options.augment, self.generator, far=self.few)

    def _step(self, engram: Engram, optimiser: Optimizer, chosen: Tensor, step: int) -> float:
        normalisations = norms(engram)
        for norm in normalisations:
            norm.momentum = max(NORM_MOMENTUM, 1 / (step + 1))
        placed = self.context.placed
        images = self._augmented(pixels(placed.rows(self.train.images, chosen)))
        labels = placed.rows(self.train.labels, chosen)
        fused = self.context.learning > 2 and bool(normalisations)
        with mixed(self.device, self.options):
            with torch.no_grad():
                joined = self.network.joined(engram, images)
                if fused:
                    images, joined = channels_last(images), {node: channels_last(one) for node, one in joined.items()}
            logits = engram.logits(engram(images, joined, fused=fused))  # (B, classes)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.options.label_smoothing)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        return float(loss.detach())
