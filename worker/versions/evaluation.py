"""Evaluation of one or two versions on labelled images, as an attempt at its job."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from engram.data.containers import ArchiveLimits
from engram.data.image_limits import ImageLimits
from engram.data.isolation.decoder import BoundedDecoder
from engram.data.labelled_images import LabelledImage, LabelledImages
from engram.errors import NothingLearned, UnknownTask
from engram.memory import Memory
from engram.recognition.naming import Naming
from engram.recognition.predictions import Observation, Prediction
from engram.runtime import threads
from engram.training.evaluation.differences import Differences
from engram.training.evaluation.true_labels import TrueLabel, TrueLabels
from engram.training.evaluation.version_figures import VersionFigures
from vault.classes.names import shown
from vault.jobs.job import Job
from vault.vault import Vault
from worker import outcome
from worker.dataset import source
from worker.settings import WorkerSettings
from worker.versions.blobs import JobBlobs
from worker.versions.job_attempt import JobAttempt
from worker.versions.publishing import load_to_answer

BATCH = 64
"""Images that are answered together."""

MOST_UNREADABLE = 100
"""Images that could not be read and are listed."""

_EVALUATING = (0.1, 0.99)
"""The part of a job's time that answering takes, after loading."""


class EvaluationAttempt(JobAttempt):
    """One attempt at an evaluation. It changes nothing, so that another one may begin anew at any time.

    Parameters
    ----------
    amid
        Called between two batches of images.
    """

    def __init__(
        self,
        vault: Vault,
        job: Job,
        token: int,
        stop: Callable[[], bool],
        settings: WorkerSettings,
        amid: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(vault, job, token, stop, settings)
        self._amid = amid

    def work(self) -> dict[str, Any]:
        self.enter("loading", 0.0)
        # An end that was decided on by a process that died then is carried out, which raises JobOver.
        outcome.carry_out(self.vault, self.job, self.vault.jobs.decisions.last(self.job.id))
        versions = self._versions()
        with (
            source.fetched(self.job, self.vault.objects, self.settings, self.interruption) as path,
            BoundedDecoder(ImageLimits.of(self.settings), stop=self.interruption) as decoder,
            threads(self.settings.torch_threads),
        ):
            definitions = [version.memory.definition for version in versions]
            images = LabelledImages(path, ArchiveLimits.of(self.settings), definitions, decoder)
            self.enter("evaluating", _EVALUATING[0])
            found = self._evaluated(versions, images)
        self.settle()
        return {"evaluation": found}

    def _versions(self) -> list[EvaluatedVersion]:
        model, blobs = self.model(), JobBlobs(self.vault.objects)
        loaded: list[Memory] = []
        namings: dict[int, Naming] = {}
        for number in self.job.options["versions"]:
            commit = self.vault.log.read(model.name, number)
            memory = load_to_answer(model, commit, blobs, loaded[-1] if loaded else None)
            if not memory.tasks:
                raise NothingLearned(f"version {number} has learned no task yet")
            namings[number] = Naming.of(memory.tasks, shown(commit))
            loaded.append(memory)
        labels = TrueLabels.of_versions(namings)
        if (task := self.job.task) and task not in labels[0].others:
            raise UnknownTask(f"neither version has a task {task!r}")
        return [EvaluatedVersion.of(*one) for one in zip(loaded, namings.values(), labels, strict=True)]

    def _evaluated(self, versions: Sequence[EvaluatedVersion], images: LabelledImages) -> dict[str, Any]:
        task = self.job.task or None
        for version in versions:  # before anything is answered, since it may be refused
            for folder in images.plan.folders:
                version.labels.of(folder, task)
        differences, done = Differences([version.number for version in versions]), 0
        begin, end = _EVALUATING
        for batch in _batches(images.read(self.interruption)):
            self._amid()
            answered = [
                version.answer(torch.stack([image.pixels[place] for image in batch]), batch, task)
                for place, version in enumerate(versions)
            ]
            if len(versions) > 1:
                _compare(batch, versions, answered, differences)
            done += len(batch)
            share = (done + len(images.unreadable)) / len(images)
            self.reporter.report("evaluating", begin + (end - begin) * share)
        unreadable = sorted(images.unreadable, key=lambda one: one.name)
        return {
            "images": done,
            "task": task,
            "versions": [version.figures.to_dict() for version in versions],
            "comparison": differences.to_dict() if len(versions) > 1 else None,
            "unreadable": {"count": len(unreadable), "listed": [asdict(one) for one in unreadable[:MOST_UNREADABLE]]},
            "left_out": asdict(images.plan.left_out),
        }


@dataclass(frozen=True)
class EvaluatedVersion:
    """A version under evaluation: its memory, the classes that it knows, and what was counted."""

    memory: Memory
    naming: Naming
    labels: TrueLabels
    figures: VersionFigures

    @classmethod
    def of(cls, memory: Memory, naming: Naming, labels: TrueLabels) -> EvaluatedVersion:
        """A version, which answers by the names that it shows."""
        return cls(Memory(memory.method.joining(naming.shown)), naming, labels, VersionFigures(labels))

    @property
    def number(self) -> int:
        return self.labels.version

    def answer(self, pixels: Tensor, batch: Sequence[LabelledImage], task: str | None) -> AnsweredBatch:
        """Answer the images (B, C, H, W) uint8 of a batch, and count the answers."""
        asked = AnsweredBatch(self.memory, self.naming, pixels)
        answers = asked.answers
        truths = [self.labels.of(image.folder, task) for image in batch]
        for row, (image, truth) in enumerate(zip(batch, truths, strict=True)):
            if truth is None:
                self.figures.add_stranger(image.folder, answers[row])
        for truth_task in sorted({truth.task for truth in truths if truth is not None}):
            rows = [row for row, truth in enumerate(truths) if truth is not None and truth.task == truth_task]
            for row, with_task in zip(rows, asked.with_task(truth_task, rows), strict=True):
                truth = truths[row]
                assert isinstance(truth, TrueLabel), "these rows have one"
                self.figures.add(truth, answers[row], with_task)
        return asked


class AnsweredBatch:
    """Images (B, C, H, W) uint8 that a version answers without their tasks, and with them."""

    def __init__(self, memory: Memory, naming: Naming, pixels: Tensor) -> None:
        self._memory = memory
        self._naming = naming
        self._pixels = pixels
        self._observed = naming.named(memory.observe(pixels))
        self._asked: dict[tuple[str, tuple[int, ...]], Observation] = {}
        self.answers = self._observed.predictions()
        """Without their tasks."""

    def with_task(self, task: str, rows: Sequence[int]) -> list[Prediction]:
        """The answers for some of the images, given that they are of a task."""
        if not self._memory.method.shapes:
            every = self._observed.predictions(task)
            return [every[row] for row in rows]
        return self._of_task(task, rows).predictions(task)

    def logits(self, task: str, rows: Sequence[int]) -> Tensor:
        """(rows, classes): the raw logits of one task, for some of the images."""
        if not self._memory.method.shapes:
            return self._observed.logits(task)[list(rows)]
        return self._of_task(task, rows).logits(task)

    def _of_task(self, task: str, rows: Sequence[int]) -> Observation:
        """Some of the images shown to one task alone, where answers are staged, so that no other is run."""
        key = task, tuple(rows)
        if key not in self._asked:
            observed = self._memory.observe(self._pixels[list(rows)], self._naming.task(task))
            self._asked[key] = self._naming.named(observed)
        return self._asked[key]


def _compare(
    batch: Sequence[LabelledImage],
    versions: Sequence[EvaluatedVersion],
    answered: Sequence[AnsweredBatch],
    differences: Differences,
) -> None:
    """Compare what two versions answer to a batch; logits where they give an image to the same task.

    Tasks and labels are the same that were learned under one name, whatever each version shows them by.
    """
    one, other = answered
    classes = [
        [version.naming.learned_class(answer.task, answer.label) for answer in asked.answers]
        for version, asked in zip(versions, answered, strict=True)
    ]
    given = [(first, second) for (first, _), (second, _) in zip(*classes, strict=True)]
    logits: dict[int, tuple[Tensor, Tensor]] = {}
    for task in sorted({first for first, second in given if first == second}):
        rows = [row for row, tasks in enumerate(given) if tasks == (task, task)]
        names = [version.naming.of_learned(task).name for version in versions]
        for row, *pair in zip(rows, one.logits(names[0], rows), other.logits(names[1], rows), strict=True):
            logits[row] = (pair[0], pair[1])
    for row, image in enumerate(batch):
        pair_of = logits.get(row, (None, None))
        learned = (classes[0][row], classes[1][row])
        differences.add(image.path, (one.answers[row], other.answers[row]), pair_of, learned)


def _batches(images: Iterator[LabelledImage]) -> Iterator[tuple[LabelledImage, ...]]:
    while batch := tuple(islice(images, BATCH)):
        yield batch
