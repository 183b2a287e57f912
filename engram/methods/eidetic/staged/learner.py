"""Learning of one task by a staged model, beside what it knows, of which nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from engram.config.eidetic import EideticSettings
from engram.context import LearnContext, WithContext
from engram.data.class_balance import class_weights
from engram.data.examples import ClassesNeeded, Examples, split
from engram.methods.base import expect_accurate, expect_recognised
from engram.methods.eidetic.commons_head import attach, fitted
from engram.methods.eidetic.staged.adopted import answers_of
from engram.methods.eidetic.staged.seen_task import SeenTask, look
from engram.methods.eidetic.staged.staged_task import StagedTask, network_of
from engram.methods.eidetic.staged.stored_sums import StoredSums
from engram.methods.eidetic.staged.task_calibration import calibrated_by
from engram.methods.eidetic.staged.task_outputs import features_and_logits
from engram.nn.capacity import TaskInfo
from engram.nn.commons import Commons
from engram.nn.network import Engram, Network
from engram.recognition.heads.head_balance import calibrated
from engram.recognition.heads.head_share import head_share
from engram.recognition.staged.contest import Contest, TaskAnswer, with_head
from engram.recognition.staged.detectors import Reading, ValueDetector, strongest
from engram.recognition.staged.exact_sums import ExactSums
from engram.recognition.staged.joined.joined_solution import JoinedSolution
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.joined.output_deviations import OutputDeviations
from engram.recognition.staged.observation import Labels
from engram.recognition.staged.recogniser import Head, KnownTask, StagedRecogniser, weights_of
from engram.recognition.staged.totals import Totals
from engram.training.learner import Learner
from engram.training.reading import ReadingChoice
from engram.training.report import LearningReport

ONE_CLASS = ClassesNeeded(1, "a task")

OF_EACH_CLASS = 200
"""Images of each class that a task's own detector learns from at least, where there are so many: means and scatter of
twenty images, as a hundred classes would have of `NEGATIVES`, tell little of others."""

NEGATIVES = 2048
"""Images of a task that a detector learns from in all: it tells classes by means and one scatter."""

CANDIDATES = 2
"""Earlier tasks that a new one may try to read, at most."""


@dataclass(frozen=True)
class Learned:
    """A staged model with one task more."""

    commons: Commons
    recogniser: StagedRecogniser
    tasks: tuple[StagedTask, ...]
    sums: StoredSums
    report: LearningReport


@dataclass(frozen=True)
class NewTask:
    """A new task whose network is trained, with all that recognising it takes."""

    name: str
    train: Examples
    """As engrams are shown them."""
    held_out: Examples
    commons: Commons
    seen: SeenTask
    engram: Engram | None
    """None for a task of one class, and one with a linear head alone."""
    linear: nn.Linear | None
    """Such a head."""
    network: Network
    """Of the engram, of what it reads, and of the earlier tasks that it gives negatives to."""
    negatives: tuple[str, ...]
    """Names of these."""
    head: Tensor
    """(M, classes): the head's logits of the held-out images."""
    features: Tensor
    """(M, F_t): what the engram's network sees in these; without values where there is none."""
    report: LearningReport
    shape: tuple[int, int, int]
    """Channels, height and width of images."""
    adopting: bool = False
    """Whether it is a network's own classifier."""

    @property
    def answers(self) -> Head | None:
        """What its logits come from."""
        if self.adopting:
            return "network"
        if self.linear is not None:
            return "linear"
        return None if self.engram is None else "blocks"


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
    sums: StoredSums
    budget: dict[str, int]
    settings: EideticSettings

    network: Network
    """With no engram, for its layout and its engine."""
    context: LearnContext
    adopting: bool = False
    """Whether the task is a network's own classifier, of whose classes images are now given."""
    novelty: int = 1
    """Number of the way that strangers are told."""

    def learn(self, task: str, examples: Examples) -> Learned:
        """Learn a task; raises as `Method.learn` does."""
        options, reporter = self.options, self.reporter
        clock = reporter.journal.clock
        started = clock()
        train, held_out = split(
            examples, options.held_out, self.context.seed, recipe=self.context.recipe, needed=ONE_CLASS
        )
        self.commons.check_classes(len(train.classes))
        commons = self.commons.fitted(train.images, reporter).eval()
        fitted = clock()
        first = self.recogniser.stage_one() if self.tasks else None
        seen = look(commons, train, held_out, first, self.context)
        looked = clock()
        shape = cast(tuple[int, int, int], tuple(train.images.shape[1:]))
        told = self._told(commons, held_out) if self.adopting else None
        new = self._trained(task, shape, commons, seen, told)
        new.report.took(fitted - started, "recognising", "commons")
        new.report.took(looked - fitted, "recognising", "looking")
        learned = self._recognise(new)
        expect_accurate(new.report, options)
        expect_recognised(new.report, options)
        return learned

    def _told(self, commons: Commons, held_out: Examples) -> Tensor:
        """(M, classes): what the network itself says of the held-out images; raises Cancelled."""
        found = []
        for image in torch.split(held_out.images, 1):
            self.reporter.check()
            found.append(answers_of(commons.look(image.to(self.device))))
        return torch.cat(found)

    def _trained(
        self, task: str, shape: tuple[int, int, int], commons: Commons, seen: SeenTask, told: Tensor | None
    ) -> NewTask:
        """The task with its network, which one of a single class does without.

        Parameters
        ----------
        told
            (M, classes) logits of the held-out images, where the task is a network's own classifier.
        """
        train, held_out = seen.shown
        layout, single = self.network.layout, len(train.classes) < 2
        masses = {one.name: mass for one, mass in zip(self.tasks, seen.masses, strict=True) if one.known.network}
        negatives = strongest(masses, self.settings.negatives or 0)
        readable = strongest(masses, CANDIDATES) if self.settings.reads == "selected" and not single else ()
        network = network_of(layout, self.tasks, (*readable, *negatives), self.network.engine)
        network.to(self.device)
        if single or told is not None or not layout.nodes:
            report = LearningReport.begun(task, train, held_out, self.options, self.reporter.journal)
            head, linear = torch.zeros(len(held_out), len(train.classes)), None
            if told is not None:
                head = told
            elif not single:
                with report.timed("recognising", "head"):
                    head, linear = self._linear(commons, seen)
            if told is not None or not single:
                rightly = head.argmax(1) == held_out.labels
                report.accuracy["network"] = float(rightly.double().mean())
            return NewTask(
                task,
                train,
                held_out,
                commons,
                seen,
                None,
                linear,
                network,
                negatives,
                head,
                head[:, :0],
                report,
                shape,
                told is not None,
            )
        choice = ReadingChoice(tuple(sorted(readable, key=lambda name: -masses[name])), self.settings.closure or 2.0)
        context = self.context
        if commons.maps is not None:  # which shifted images do not have: they are computed once, of images as they are
            context = replace(context, options=self.options.model_copy(update={"augment": "none"}))
        engram, report = Learner(network, self.budget, context, choice).learn_from(task, train, held_out)
        network = network.appended(engram.to(self.device))
        with report.timed("recognising", "head"):
            features, head = features_and_logits(network, engram, held_out, self.context)
            if self.settings.read_commons:
                balanced, common = class_weights(train) is not None, seen.sums.split(seen.held_out)
                packed, own = seen.sums.packed(), seen.regressions(commons)
                head = attach(engram, packed, head, common, held_out.labels, balanced=balanced, solutions=own)
        return NewTask(
            task, train, held_out, commons, seen, engram, None, network, negatives, head, features, report, shape
        )

    @staticmethod
    def _linear(commons: Commons, seen: SeenTask) -> tuple[Tensor, nn.Linear]:
        """A linear head over the commons, and its logits (M, classes) of the held-out images."""
        train, held_out = seen.shown
        blank, common = torch.zeros(len(held_out), len(train.classes)), seen.sums.split(seen.held_out)
        balanced = class_weights(train) is not None
        packed, own = seen.sums.packed(), seen.regressions(commons)
        _, linear = fitted(packed, blank, common, held_out.labels, balanced=balanced, solutions=own)
        with torch.no_grad():
            return linear(seen.held_out), linear.requires_grad_(False)

    def _recognise(self, new: NewTask) -> Learned:
        with new.report.timed("recognising", "calibrating"):
            sums = new.seen.all_sums(new.held_out)
            balance, head, temperature = calibrated(new.head, new.held_out, new.train, self.context.recipe)
            earlier = self.sums.first() if self.tasks else None
            beside = self.tasks[0].known.mixture if self.tasks else None
            judged = new.seen.judged(new.held_out)
            given = calibrated_by(
                new.name,
                new.commons,
                sums,
                judged,
                earlier,
                beside,
                new.shape,
                self.context,
                novelty=self.novelty,
            )
        self.reporter.report("recognising", 0.6)
        with new.report.timed("recognising", "detectors"):
            pairs, detectors, reading = self._detectors(new)
        ridge, sparing = given.ridge[-len(new.held_out) :], self.context.learning > 1
        share = head_share(head / temperature, ridge, new.held_out.labels, sparing=sparing)
        profile = replace(given.profile, temperature=temperature, balance=balance, head_share=share)
        info = TaskInfo(new.name, new.train.classes, {} if new.engram is None else dict(new.engram.units))
        known = KnownTask(
            info,
            new.engram is not None,
            profile.log_temperature,
            profile.evidence,
            reading,
            new.answers,
            given.mixture,
        )
        tasks = (*self.tasks, StagedTask.learned(known, self.network.layout, new.engram, profile, new.linear))
        with new.report.timed("recognising", "solving"):
            totals = self.sums.totals(new.commons).plus(new.name, sums)
            # Of one or two tasks, those are all that there are, and their regression is solved already.
            solved = given.solved if len(self.tasks) < 2 else JoinedSolution.of(totals, new.commons.ridges)
            solvable = {**self.recogniser.detectors, **{name: ValueDetector.of(one) for name, one in detectors.items()}}
            everyone = tuple(one.known for one in tasks)
            weights = weights_of(everyone, len(solved.each))
            adopted = self.recogniser.adopted if new.answers != "network" else None
            outputs = new.commons.outputs() if self.novelty > 2 else None
            deviations = None if outputs is None else OutputDeviations.of(totals, outputs)
            space = solved.space(weights, relative=self.novelty > 1, outputs=deviations)
            recogniser = StagedRecogniser(everyone, space, solvable, adopted)
            if len(weights) > 1:
                new.report.details["commons"] = list(weights)
        with new.report.timed("recognising", "judging"):
            self._judge(new, recogniser, totals, solved, (head / temperature, share))
        new.report.novelty = profile.novelty()
        if new.engram is not None:
            needed = new.network.closure(new.name)
            new.report.details["closure"] = round(needed.total / needed.alone, 4)
        self.reporter.report("recognising", 1.0)
        with new.report.timed("recognising", "packing"):
            stored = self.sums.plus(totals, new.name, sums, pairs, detectors)
        return Learned(new.commons, recogniser, tasks, stored, new.report)

    def _detectors(self, new: NewTask) -> tuple[dict[str, ExactSums], dict[str, Totals], Reading | None]:
        """By detector the task's sums over the values that it reads, and its totals; what the task's own reads."""
        pairs, totals, reading = {}, {}, None
        number = self.context.learning
        if new.engram is not None:
            most = max(NEGATIVES, OF_EACH_CLASS * len(new.train.classes))
            own = replace(new, train=new.train.evenly(most)) if number > 2 else new
            features, _ = features_and_logits(new.network, new.engram, own.train, self.context)
            reading = Reading.of(features, new.engram.head.weight.detach().cpu())
            pairs[new.name] = self._over(reading, own, features, new.features)
            totals[new.name] = Totals.empty(len(reading.chosen), reading.step).plus(new.name, pairs[new.name])
        by_name, shown = {one.name: one for one in self.tasks}, new
        if number > 1:
            shown = replace(new, train=new.train.evenly(NEGATIVES), held_out=new.held_out.evenly(NEGATIVES // 4))
        for name in new.negatives:
            other, its = by_name[name].engram, by_name[name].known.reading
            if other is None or its is None:
                continue  # without a network there is no detector
            both = (
                features_and_logits(new.network, other, some, self.context)[0] for some in (shown.train, shown.held_out)
            )
            pairs[name] = self._over(its, shown, *both)
            totals[name] = self.sums.detector(name).plus(new.name, pairs[name])
        return pairs, totals, reading

    @staticmethod
    def _over(reading: Reading, new: NewTask, features: Tensor, held_out: Tensor) -> ExactSums:
        """Sums of the task's images over what a detector reads, from features of those to learn from and held out."""
        found = ExactSums.empty(len(reading.chosen), len(new.train.classes), reading.step)
        return found.plus(reading(features), new.train.labels).plus(reading(held_out), new.held_out.labels)

    def _judge(
        self,
        new: NewTask,
        recogniser: StagedRecogniser,
        totals: JoinedTotals,
        solved: JoinedSolution,
        decisive: tuple[Tensor, float],
    ) -> None:
        """Write down how the held-out images fare, as if stage one had not learned from them.

        Parameters
        ----------
        decisive
            What decides between the task's classes, over its temperature (M, classes), and its share beside stage one.
        """
        held_out, (head, share) = new.held_out, decisive
        common = new.seen.sums.split(new.seen.held_out)
        apart = solved.left_out(totals, new.name, common, held_out.labels)
        left_out = apart.mixed(weights_of(recogniser.tasks, len(solved.each)))
        first = recogniser.stage_one().of_points(left_out.points, left_out.distances)
        most = None if self.settings.contenders == "all" else int(self.settings.contenders or 2)
        contending, answers = first.contenders(most), {}
        loaded = {engram.task: engram for engram in new.network.stack}
        for number, task in enumerate(recogniser.tasks):
            rows = contending[:, number].nonzero().flatten()
            # Engrams that were not needed to learn the task are not read to judge it.
            if task.info.name not in loaded or task.reading is None or not len(rows):
                continue
            if task.info.name == new.name:
                features, logits = new.features[rows], new.head[rows]
            else:
                some = held_out.subset(rows)
                features, logits = features_and_logits(new.network, loaded[task.info.name], some, self.context)
            answers[number] = TaskAnswer(rows, logits, task.reading(features))
        log_tasks = Contest.of(recogniser).log_tasks(first, contending, answers)
        given = with_head(first, log_tasks, head, share, contending[:, -1], totals.sizes)
        labels = Labels.of(recogniser.infos, self.settings.labels != "apart")
        right = labels.of_class[-len(held_out.classes) :][held_out.labels]  # (M,): of each image
        # A task that has a class of the same name answers as rightly as the image's own.
        holders = torch.zeros(len(labels.names), len(recogniser.tasks), dtype=torch.bool)
        holders[labels.of_class, torch.tensor(labels.tasks)] = True
        hits = head.argmax(1) == held_out.labels
        owners = labels.owners(given)
        new.report.recognised = float(holders[right, owners].double().mean())
        new.report.route(owners, [known.info.name for known in recogniser.tasks])
        new.report.answered = float((labels.summed(given).argmax(1) == right).double().mean())
        new.report.judge(hits, held_out)
