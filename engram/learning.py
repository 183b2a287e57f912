"""One task: examples in, an engram out."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from engram.capacity import candidate_units
from engram.commons import Commons
from engram.data import Examples, split
from engram.density import Density
from engram.errors import AccuracyTooLow, RecognitionTooLow
from engram.network import Engram, Network, pixels
from engram.options import LearnOptions
from engram.progress import Reporter
from engram.pruning import smallest
from engram.recogniser import Reading, Recogniser, fitted_temperature
from engram.scores import score_units
from engram.sums import Sums
from engram.training import EVALUATION_BATCH, OptimiserFactory, Run, Trainer, batches, measure


@dataclass
class LearningReport:
    """What learning one task did and cost; everything in it can be written as JSON."""

    task: str
    classes: dict[str, int]
    """Images of each class that were learned from."""
    held_out: int
    options: dict[str, object]
    candidate: dict[str, int] = field(default_factory=dict)
    """Units tried in each layer."""
    units: dict[str, int] = field(default_factory=dict)
    """Units kept in each layer."""
    accuracy: dict[str, float] = field(default_factory=dict)
    """Held-out accuracy with the task given: `trained`, before pruning, and `kept`, of the engram itself."""
    recognised: float = 1.0
    """Share of the held-out images that the recogniser gives to this task, among all tasks so far."""
    answered: float = 0.0
    """Held-out accuracy with no task given."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each phase."""

    def to_dict(self) -> dict[str, object]:
        return dict(vars(self))


@dataclass(frozen=True)
class Learned:
    """What learning one task produced: nothing of it touches what was there before."""

    engram: Engram
    recogniser: Recogniser
    sums: Sums
    report: LearningReport


@dataclass
class Learner:
    """Learns one task on a fixed stack.

    Parameters
    ----------
    network, commons, recogniser, sums
        What the model is today; none of it is changed.
    budget
        Units per layer for all tasks together.
    seed
        Of the first weights, the order of images, and every random choice.
    """

    network: Network
    commons: Commons
    recogniser: Recogniser
    sums: Sums
    budget: Mapping[str, int]
    seed: int
    options: LearnOptions
    reporter: Reporter
    device: torch.device
    optimiser: OptimiserFactory | None = None

    def learn(self, task: str, examples: Examples) -> Learned:
        """Train to a plateau, prune, recover, freeze; then teach the recogniser.

        Raises
        ------
        ExamplesError, CapacityExhausted, Cancelled, AccuracyTooLow, RecognitionTooLow
        """
        train, held_out = split(examples, self.options.held_out, self.seed)
        counts = dict(zip(train.classes, train.counts(), strict=True))
        report = LearningReport(task, counts, len(held_out), self.options.model_dump(mode="json"))
        generator = torch.Generator().manual_seed(self.seed)
        trainer = Trainer(
            self.network, train, held_out, self.options, self.reporter, self.device, generator, self.optimiser
        )
        with _timed(report, "training"):
            engram = self._train(task, trainer, report)
        if self.options.prune:
            engram = self._prune(engram, trainer, report)
        self.reporter.report("freezing", 1.0, units=sum(engram.units.values()))
        # A copy: whoever still holds the optimiser holds parameters that are no longer the model's.
        engram = copy.deepcopy(engram).freeze()
        report.units = dict(engram.units)
        report.accuracy["kept"] = measure(self.network, engram, held_out, self.device).accuracy
        if report.accuracy["kept"] < self.options.least_accuracy:
            raise AccuracyTooLow(
                f"{report.accuracy['kept']:.1%} of the held-out images are answered right, under the "
                f"{self.options.least_accuracy:.1%} that were asked for"
            )
        with _timed(report, "recognising"):
            recogniser, sums = self._recognise(engram, train, held_out, report)
        if report.recognised < self.options.least_recognised:
            raise RecognitionTooLow(
                f"{report.recognised:.1%} of the held-out images are given to this task, under the "
                f"{self.options.least_recognised:.1%} that were asked for"
            )
        return Learned(engram.cpu(), recogniser, sums, report)

    def _train(self, task: str, trainer: Trainer, report: LearningReport) -> Engram:
        units = candidate_units(self.network.layout, self.budget, self.network.stack)
        report.candidate = dict(units)
        self.reporter.report("training", 0.0, units=sum(units.values()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            engram = Engram(self.network.layout, task, trainer.train.classes, self.network.owned, units)
        engram.to(self.device)
        best = trainer.fit(
            engram,
            Run("training", (0.0, 1.0), self.options.epochs, self.options.learning_rate, self.options.patience),
        )
        report.accuracy["trained"] = best.accuracy
        return engram

    def _prune(self, engram: Engram, trainer: Trainer, report: LearningReport) -> Engram:
        """Search for the smallest set that holds, recover, search again from there."""
        judged = trainer.judged
        least = self._accuracy(engram, judged) - self.options.tolerance
        rounds, epochs = self.options.rounds, self.options.recovery_epochs
        for number in range(rounds):
            self.reporter.report("pruning", number / rounds, units=sum(engram.units.values()))
            with _timed(report, "pruning"):
                narrow = self._search(engram, trainer, judged, least)
            if narrow is None:
                break
            share = (number / rounds, (number + 1) / rounds)
            with _timed(report, "recovering"):
                run = Run("recovering", share, epochs, self.options.learning_rate / 4, epochs)
                trainer.fit(narrow, run)
            if self._accuracy(narrow, judged) < least:
                break
            engram = narrow
        return engram

    def _accuracy(self, engram: Engram, examples: Examples) -> float:
        self.reporter.check()
        return measure(self.network, engram.to(self.device), examples, self.device).accuracy

    def _search(self, engram: Engram, trainer: Trainer, judged: Examples, least: float) -> Engram | None:
        scores = score_units(
            self.options.score, self.network, engram, trainer.train, trainer.generator, self.reporter, self.device
        )
        found = smallest(engram, scores, self.options.floor, least, lambda candidate: self._accuracy(candidate, judged))
        return None if found is None else found.engram

    def _recognise(
        self, engram: Engram, train: Examples, held_out: Examples, report: LearningReport
    ) -> tuple[Recogniser, Sums]:
        network = self.network.appended(engram).to(self.device).eval()
        earlier = sum(reading.classes for reading in self.recogniser.readings)
        sums, own = self.sums.widened(len(train.classes)), []
        for chosen, seen in self._observe(network, train, 0.0, 0.6):
            sums = sums.plus(seen.commons, train.labels[chosen] + earlier)
            own.append(seen.prefixes[-1])
        judged = _joined([seen for _, seen in self._observe(network, held_out, 0.6, 0.7)])
        density = Density.fit(torch.cat(own), train.labels, len(train.classes), judged.prefixes[-1])
        temperature = fitted_temperature(judged.heads[-1], held_out.labels)
        reading = Reading(engram.task, len(train.classes), density, temperature)
        recogniser = replace(self.recogniser, weights=sums.solve(), readings=(*self.recogniser.readings, reading))
        self.reporter.report("recognising", 0.85)
        scores, distances = recogniser.class_scores(judged.commons), recogniser.distances(judged.prefixes)
        recogniser = recogniser.calibrated(scores, distances)
        right = recogniser.log_probabilities(scores, distances).argmax(1) == len(network.stack) - 1
        report.recognised = float(right.double().mean())
        report.answered = float((right & (judged.heads[-1].argmax(1) == held_out.labels)).double().mean())
        # What was held out has served its purpose, and exact sums only gain by it.
        sums = sums.plus(judged.commons, held_out.labels + earlier)
        self.reporter.report("recognising", 1.0)
        return replace(recogniser, weights=sums.solve()), sums

    @torch.no_grad()
    def _observe(
        self, network: Network, examples: Examples, start: float, end: float
    ) -> Iterator[tuple[Tensor, _Seen]]:
        """Batches of indices, and what one pass sees in their images."""
        commons = self.commons.to(self.device)
        for number, chosen in enumerate(batches(len(examples), EVALUATION_BATCH)):
            images = pixels(examples.images[chosen].to(self.device))
            outputs = network(images)
            prefixes, heads = [features.cpu() for features, _ in outputs], [logits.cpu() for _, logits in outputs]
            yield chosen, _Seen(commons(images).cpu(), prefixes, heads)
            done = min(1.0, (number + 1) * EVALUATION_BATCH / len(examples))
            self.reporter.report("recognising", start + (end - start) * done)


@dataclass(frozen=True)
class _Seen:
    """Commons features (B, F), and for every task its prefix features and logits."""

    commons: Tensor
    prefixes: list[Tensor]
    heads: list[Tensor]


def _joined(parts: Sequence[_Seen]) -> _Seen:
    prefixes = [torch.cat(column) for column in zip(*(part.prefixes for part in parts), strict=True)]
    heads = [torch.cat(column) for column in zip(*(part.heads for part in parts), strict=True)]
    return _Seen(torch.cat([part.commons for part in parts]), prefixes, heads)


@contextmanager
def _timed(report: LearningReport, phase: str) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    finally:
        report.seconds[phase] = round(report.seconds.get(phase, 0.0) + time.monotonic() - started, 3)
