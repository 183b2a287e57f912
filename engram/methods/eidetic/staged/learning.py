"""Learning of one task by a staged model, beside what it knows, of which nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engram.config.eidetic import EideticSettings
from engram.context import LearnContext, WithContext
from engram.data.class_balance import class_weights
from engram.data.examples import ClassesNeeded, Examples, split
from engram.methods.base import expect_accurate, expect_recognised
from engram.methods.eidetic.commons_head import fitted
from engram.methods.eidetic.staged.evidence import calibrated_by
from engram.methods.eidetic.staged.looking import SeenTask, look
from engram.methods.eidetic.staged.seeing import features_and_logits
from engram.methods.eidetic.staged.stored import Sums
from engram.methods.eidetic.staged.tasks import StagedTask, network_of
from engram.nn.capacity import TaskInfo
from engram.nn.commons import Commons
from engram.nn.network import Engram, Network
from engram.recognition.head_balance import calibrated
from engram.recognition.staged.contest import Contest, TaskAnswer, with_head
from engram.recognition.staged.detectors import Reading, ValueDetector, strongest
from engram.recognition.staged.observation import Labels
from engram.recognition.staged.recogniser import KnownTask, StagedRecogniser
from engram.recognition.staged.score_space import SolvedTotals
from engram.recognition.staged.sums import ExactSums
from engram.recognition.staged.task_evidence import LeftOutScores
from engram.recognition.staged.totals import Totals
from engram.training.learner import Learner
from engram.training.reading import ReadingChoice
from engram.training.report import LearningReport

ONE_CLASS = ClassesNeeded(1, "a task")

CANDIDATES = 2
"""Earlier tasks that a new one may try to read, at most."""


@dataclass(frozen=True)
class Learned:
    """A staged model with one task more."""

    commons: Commons
    recogniser: StagedRecogniser
    tasks: tuple[StagedTask, ...]
    sums: Sums
    report: LearningReport


@dataclass
class StagedLearner(WithContext):
    """The learner of one task of a staged model.

    Parameters
    ----------
    commons, recogniser, tasks, sums
        What the model is today.
    budget
        Units per layer for all tasks together.
    """

    commons: Commons
    recogniser: StagedRecogniser
    tasks: tuple[StagedTask, ...]
    sums: Sums
    budget: dict[str, int]
    settings: EideticSettings

    network: Network
    """With no engram, for its layout."""
    context: LearnContext

    def learn(self, task: str, examples: Examples) -> Learned:
        """Learn a task; raises as `Method.learn` does."""
        options, reporter = self.options, self.reporter
        started = reporter.journal.clock()
        train, held_out = split(
            examples, options.held_out, self.context.seed, recipe=self.context.recipe, needed=ONE_CLASS
        )
        self.commons.check_classes(len(train.classes))
        commons = self.commons.fitted(train.images, reporter).eval()
        first = self.recogniser.stage_one() if self.tasks else None
        seen = look(commons, train, held_out, first, self.context)
        looked = reporter.journal.clock() - started
        masses = [(one.name, mass) for one, mass in zip(self.tasks, seen.masses, strict=True) if one.known.network]
        engram, report, network = self._network(task, examples, masses)
        if engram is None:
            report = LearningReport.begun(task, train, held_out, options, reporter.journal)
            head = torch.zeros(len(held_out), 1)
        else:
            network = network.appended(engram)
            head = features_and_logits(network, engram, held_out, self.context, seen.held_out)[1]
            if self.settings.read_commons:
                head = self._reading(engram, seen, head, train, held_out)
        report.seconds["recognising"] = looked
        with report.timed("recognising"):
            learned = self._recognise(task, train, held_out, commons, seen, engram, network, head, masses, report)
        expect_accurate(report, options)
        expect_recognised(report, options)
        return learned

    def _network(
        self, task: str, examples: Examples, masses: Sequence[tuple[str, float]]
    ) -> tuple[Engram | None, LearningReport, Network]:
        """The engram, what was reported of it, and the network of those that it may read; none for a single class."""
        layout = self.network.layout
        single = len(examples.classes) < 2
        readable = strongest(masses, CANDIDATES) if self.settings.reads == "selected" and not single else ()
        ordered = sorted(readable, key=lambda name: -dict(masses)[name])
        negatives = strongest(masses, self.settings.negatives or 0)
        network = network_of(layout, self.tasks, (*ordered, *negatives))
        network.to(self.device)
        if single:
            return None, LearningReport(task, {}, 0, {}), network
        choice = ReadingChoice(tuple(ordered), self.settings.closure or 2.0)
        engram, report, _, _ = Learner(network, self.budget, self.context, choice).learn(task, examples)
        return engram.to(self.device), report, network

    @torch.no_grad()
    def _reading(self, engram: Engram, seen: SeenTask, head: Tensor, train: Examples, held_out: Examples) -> Tensor:
        """Let the engram's head read the commons too; what it gives for the held-out images then."""
        balanced = class_weights(train) is not None
        factor, common = fitted(seen.sums.packed(), head, seen.held_out, held_out.labels, balanced=balanced)
        engram.head.weight.mul_(factor)
        engram.head.bias.mul_(factor)
        engram.common = common.to(engram.head.weight.device)
        engram.freeze()
        found: Tensor = factor * head + common(seen.held_out)
        return found

    def _recognise(
        self,
        task: str,
        train: Examples,
        held_out: Examples,
        commons: Commons,
        seen: SeenTask,
        engram: Engram | None,
        network: Network,
        head: Tensor,
        masses: Sequence[tuple[str, float]],
        report: LearningReport,
    ) -> Learned:
        sums = seen.all_sums(held_out)
        balance, head, temperature = calibrated(head, held_out, train, self.context.recipe)
        earlier = self.sums.first() if self.tasks else None
        shape = self.network.layout.channels, *self.network.layout.image_size
        profile = calibrated_by(task, commons, sums, seen.judged(held_out), earlier, shape, self.context)
        self.reporter.report("recognising", 0.6)
        pairs, detectors, reading = self._detectors(task, train, held_out, engram, network, masses)
        profile = replace(profile, temperature=temperature, balance=balance)
        units = {} if engram is None else dict(engram.units)
        known = KnownTask(
            TaskInfo(task, train.classes, units), engram is not None, profile.log_temperature, profile.evidence, reading
        )
        added = StagedTask.learned(known, self.network.layout, engram, profile)
        totals = self.sums.totals(commons).plus(task, sums)
        solved = SolvedTotals.of(totals)
        solvable = {**self.recogniser.detectors, **{name: ValueDetector.of(one) for name, one in detectors.items()}}
        tasks = (*self.tasks, added)
        recogniser = StagedRecogniser(tuple(one.known for one in tasks), solved.space, solvable)
        self._judge(report, recogniser, tasks, totals, solved, seen, head / temperature, held_out, network)
        report.novelty = profile.novelty()
        if engram is not None:
            needed = network.closure(task)
            report.details["closure"] = round(needed.total / needed.alone, 4)
        self.reporter.report("recognising", 1.0)
        stored = self.sums.plus(totals, task, sums, pairs, detectors)
        return Learned(commons, recogniser, tasks, stored, report)

    def _detectors(
        self,
        task: str,
        train: Examples,
        held_out: Examples,
        engram: Engram | None,
        network: Network,
        masses: Sequence[tuple[str, float]],
    ) -> tuple[dict[str, ExactSums], dict[str, Totals], Reading | None]:
        """Sums over the values that its own detector and earlier ones read, those detectors' totals, its reading."""
        pairs, totals, reading = {}, {}, None
        if engram is not None:
            features = features_and_logits(network, engram, train, self.context)[0]
            reading = Reading.of(features, engram.head.weight.detach().cpu())
            pairs[task] = self._over(reading, network, engram, train, held_out, features)
            totals[task] = Totals.empty(len(reading.chosen), reading.step).plus(task, pairs[task])
        by_name = {one.name: one for one in self.tasks}
        for name in strongest(masses, self.settings.negatives or 0):
            other, its = by_name[name].engram, by_name[name].known.reading
            if other is None or its is None:
                continue  # without a network there is no detector
            pairs[name] = self._over(its, network, other, train, held_out)
            totals[name] = self.sums.detector(name).plus(task, pairs[name])
        return pairs, totals, reading

    def _over(
        self,
        reading: Reading,
        network: Network,
        engram: Engram,
        train: Examples,
        held_out: Examples,
        features: Tensor | None = None,
    ) -> ExactSums:
        """Sums of the task's images over what a detector reads."""
        found = ExactSums.empty(len(reading.chosen), len(train.classes), reading.step)
        if features is None:
            features = features_and_logits(network, engram, train, self.context)[0]
        more = features_and_logits(network, engram, held_out, self.context)[0]
        return found.plus(reading(features), train.labels).plus(reading(more), held_out.labels)

    def _judge(
        self,
        report: LearningReport,
        recogniser: StagedRecogniser,
        tasks: Sequence[StagedTask],
        totals: Totals,
        solved: SolvedTotals,
        seen: SeenTask,
        head: Tensor,
        held_out: Examples,
        network: Network,
    ) -> None:
        """Write down how the held-out images fare, as if stage one had not learned from them."""
        name = tasks[-1].name
        left_out = LeftOutScores.of(totals, solved, name, seen.held_out, held_out.labels)
        first = recogniser.stage_one().of_distances(left_out.distances)
        most = None if self.settings.contenders == "all" else int(self.settings.contenders or 2)
        contending = first.contenders(most)
        answers = {}
        loaded = {engram.task: engram for engram in network.stack}
        for number, task in enumerate(tasks):
            rows = contending[:, number].nonzero().flatten()
            # Engrams that were not needed to learn the task are not read to judge it.
            if task.name not in loaded or task.known.reading is None or not len(rows):
                continue
            features, logits = features_and_logits(network, loaded[task.name], held_out.subset(rows), self.context)
            answers[number] = TaskAnswer(rows, logits, task.known.reading(features))
        contest = Contest.of(recogniser)
        given = with_head(first, contest.log_tasks(first, contending, answers), head, contending[:, -1], totals.sizes)
        labels = Labels.of(recogniser.infos, self.settings.labels != "apart")
        right = labels.of_class[-len(held_out.classes) :][held_out.labels]  # (M,): of each image
        # A task that has a class of the same name answers as rightly as the image's own.
        holders = torch.zeros(len(labels.names), len(tasks), dtype=torch.bool)
        holders[labels.of_class, torch.tensor(labels.tasks)] = True
        hits = head.argmax(1) == held_out.labels
        report.recognised = float(holders[right, labels.owners(given)].double().mean())
        report.answered = float((labels.summed(given).argmax(1) == right).double().mean())
        report.judge(hits, held_out)
