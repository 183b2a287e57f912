"""Learning of one engram on blocks: train, prune, recover, freeze."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from engram.context import LearnContext, WithContext
from engram.data.examples import Examples, split
from engram.nn.capacity import candidate_units
from engram.nn.network import Engram, Network
from engram.nn.reads import Reads, read_units
from engram.training.distinctive_patches import start_from_patches
from engram.training.importance import SCORED_IMAGES, Scores, score_units
from engram.training.measuring import KnownEvaluations
from engram.training.probes import told
from engram.training.pruning import smallest
from engram.training.reading import ReadingChoice, earned
from engram.training.report import LearningReport
from engram.training.trainer import MOST_RECOVERED, Trainer, TrainingPhase


@dataclass
class Learner(WithContext):
    """The learner of one task on a fixed stack of engrams.

    Where it may choose what to read, it first trains an engram that reads nothing. One that reads is trained beside it
    where probes say that it could be better, and is taken where it is.

    Parameters
    ----------
    network
        What the model is today; nothing of it is changed.
    budget
        Units per layer for all tasks together.
    reading
        Whom the engram may read; None where it reads everything before it.
    """

    network: Network
    budget: Mapping[str, int]
    context: LearnContext
    reading: ReadingChoice | None = None

    def learn(self, task: str, examples: Examples) -> tuple[Engram, LearningReport, Examples, Examples]:
        """Train to a plateau, prune, recover, freeze.

        Returns
        -------
        The frozen engram, the report so far, the images it was learned from and the images it was judged by.

        Raises
        ------
        ExamplesError, CapacityExhausted, Cancelled
        """
        train, held_out = split(examples, self.options.held_out, self.context.seed, recipe=self.context.recipe)
        engram, report = self.learn_from(task, train, held_out)
        return engram, report, train, held_out

    def learn_from(self, task: str, train: Examples, held_out: Examples) -> tuple[Engram, LearningReport]:
        """The same from images that are divided already, as `split` does it."""
        options, reporter = self.options, self.reporter
        report = LearningReport.begun(task, train, held_out, options, reporter.journal)
        known = KnownEvaluations()
        trainer = Trainer(self.network, train, held_out, self.context, self.context.generator(), known)
        with report.timed("training"):
            alone = self._train(task, trainer, report, None if self.reading is None else ())
        engram = None if self.reading is None else self._reader(self.reading, alone, trainer, report)
        if engram is None:
            engram = self._prune(alone, trainer, report) if options.prune else alone
        reporter.report("freezing", 1.0, units=sum(engram.units.values()))
        with report.timed("pruning", "validating"):
            report.accuracy["network"] = trainer.accuracy(engram, held_out)
        # A copy: whoever still holds the optimiser holds parameters that are no longer the model's.
        engram = engram.frozen_copy()
        report.units = dict(engram.units)
        if engram.reads is not None:
            report.details["reads"] = {
                read.owner: {layer: len(units) for layer, units in read.units.items()} for read in engram.reads
            }
        return engram, report

    def _reader(self, reading: ReadingChoice, alone: Engram, trainer: Trainer, report: LearningReport) -> Engram | None:
        """An engram that reads and is better than one that does not, trained and pruned; None where there is none."""
        reads = reading.first(self.network, alone.task, alone.classes, alone.units)
        if not reads:
            return None
        with report.timed("pruning", "validating"):
            validated = trainer.validated(alone)
        least = earned(validated, len(trainer.validation), self.options.tolerance)
        if least > 1:
            return None
        with report.timed("training", "choosing"):
            promising = self._promising(alone, [read.owner for read in reads], trainer)
        if not promising:
            return None
        trained = report.accuracy["trained"]
        with report.timed("training"):
            engram = self._train(alone.task, trainer, report, reads)
        with report.timed("pruning", "validating"):
            validated = trainer.validated(engram)
        if validated < least:
            report.accuracy["trained"] = trained
            return None
        return self._prune(engram, trainer, report) if self.options.prune else engram

    def _promising(self, alone: Engram, owners: Sequence[str], trainer: Trainer) -> bool:
        """Whether what earlier networks see tells linear probes more than tolerance and chance would."""
        images = trainer.validation
        own, both = self.reporter.journal.once(
            "probes", lambda: told(self.network, alone, owners, trainer.train, images, self.reporter)
        )
        return both >= earned(own, len(images), self.options.tolerance)

    def _train(self, task: str, trainer: Trainer, report: LearningReport, reads: Reads | None) -> Engram:
        network, classes = self.network, trainer.train.classes
        units = candidate_units(network.layout, self.budget, {"all": network.owned})
        report.candidate = dict(units)
        self.reporter.report("training", 0.0, units=sum(units.values()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.context.seed)
            earlier = network.owned if reads is None else read_units(network.layout.layers, reads)
            engram = Engram(network.layout, task, classes, earlier, units, reads)
        if self.context.recipe > 1:
            start_from_patches(engram, trainer.train, self.context.generator())
        engram.to(self.device)
        options = self.options
        phase = TrainingPhase.to_plateau(options)
        best = trainer.fit(engram, phase)
        report.accuracy["trained"] = trainer.trained_accuracy(engram, best)
        return engram

    def _prune(self, engram: Engram, trainer: Trainer, report: LearningReport) -> Engram:
        """Search for the smallest set that holds, recover, search again from there."""
        options = self.options
        with report.timed("pruning", "validating"):
            least = trainer.validated(engram) - options.tolerance
        rounds = options.rounds
        for number in range(rounds):
            self.reporter.report("pruning", number / rounds, units=sum(engram.units.values()))
            with report.timed("pruning"):
                narrow = self._search(engram, trainer, least)
            if narrow is None:
                break
            share = (number / rounds, (number + 1) / rounds)
            with report.timed("recovering"):
                phase = TrainingPhase.recovering(options, share, MOST_RECOVERED if self.context.learning > 1 else None)
                trainer.fit(narrow, phase)
            with report.timed("pruning", "validating"):
                validated = trainer.validated(narrow)
            if validated < least:
                break
            engram = narrow
        return engram

    def _search(self, engram: Engram, trainer: Trainer, least: float) -> Engram | None:
        scores = trainer.reporter.journal.once("scores", lambda: self._scores(engram, trainer), trainer.generator)
        bounded = None if self.reading is None else partial(self.reading.bounded, self.network)
        judge = partial(trainer.validated, least=least)
        found = smallest(engram, scores, self.options.floor, least, judge, bounded=bounded)
        return None if found is None else found.engram

    def _scores(self, engram: Engram, trainer: Trainer) -> Scores:
        kind, drawn, most = self.options.score, trainer.generator, SCORED_IMAGES[self.context.learning]
        return score_units(
            kind, self.network, engram, trainer.train, drawn, self.reporter, self.device, trainer.weights, most
        )
