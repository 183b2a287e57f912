"""Evaluation of a learner on a task sequence: accuracy matrices with and without the task's id."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch

from benchmarks.harness.datasets import Tasks
from benchmarks.harness.learners import BenchmarkPrediction
from benchmarks.harness.metrics import average_accuracy, backward_transfer, forgetting
from benchmarks.harness.novelty import novelty_figures
from engram import Examples
from engram.checkpointing.progress import Progress
from engram.training.evaluation.calibration_error import calibration_error

Watcher = Callable[[int, Progress | None], None]
"""Callback for progress: the number of the task, and its progress of learning (None: it is being evaluated)."""


class BenchmarkLearner(Protocol):
    """A learner under evaluation: the Python one, the one behind HTTP, or a baseline."""

    @property
    def incremental(self) -> bool:
        """Whether it predicts after every task; joint training predicts after the last one only."""

    def learn(self, task: str, examples: Examples, progress: Callable[[Progress], None]) -> dict[str, object]: ...

    def predict(self, examples: Examples, task: str | None) -> list[BenchmarkPrediction]: ...

    def free(self) -> float | None:
        """Share of the units that no task owns; None if units have no owners."""

    def stored(self) -> dict[str, int] | None:
        """Bytes kept from one task to the next, by kind; None if unknown."""


@dataclass
class BenchmarkProgress:
    """Figures of a run so far; the fields are JSON, so that an interrupted run can be resumed."""

    seconds: list[float] = field(default_factory=list)
    """Duration of learning each task."""
    matrix: list[list[float]] = field(default_factory=list)
    """Accuracy with id on every task so far, after each task but the last."""
    matrix_without_id: list[list[float]] = field(default_factory=list)
    free: list[float | None] = field(default_factory=list)
    units: list[object] = field(default_factory=list)
    """Units of each task, by layer."""
    novelty: list[dict[str, float] | None] = field(default_factory=list)
    """Novelty figures of each task but the first, before it was learned."""


@dataclass(frozen=True)
class TaskEvaluation:
    """Evaluation of one task's test images, with its id and without."""

    with_id: float
    recognised: float | None
    """Share of images recognised as of the task; None if an answer names no task."""
    without_id: float
    images: int
    probabilities: list[float]
    right: list[bool]
    given_to: list[int] | None
    """Number of images recognised as of each task."""
    passes: float
    """Mean number of forward passes of an answer."""


def name_of(task: int) -> str:
    return f"task {task}"


def accuracy(answers: Sequence[BenchmarkPrediction], examples: Examples) -> float:
    """Share of the answers with the right label."""
    labels: list[int] = examples.labels.tolist()
    return sum(a.label == examples.classes[label] for a, label in zip(answers, labels, strict=True)) / len(labels)


def evaluate_task(memory: BenchmarkLearner, task: int, examples: Examples, tasks: int) -> TaskEvaluation:
    """Evaluate the images of one of so many tasks.

    Without an id an answer is right if its label is: if tasks share their labels, it may come from another task.
    """
    answers, labels = memory.predict(examples, None), examples.labels.tolist()
    given_to = None
    if all(answer.task is not None for answer in answers):
        named = [answer.task for answer in answers]
        given_to = [named.count(name_of(other)) for other in range(tasks)]
    return TaskEvaluation(
        accuracy(memory.predict(examples, name_of(task)), examples),
        None if given_to is None else given_to[task] / len(labels),
        accuracy(answers, examples),
        len(labels),
        [answer.probability for answer in answers],
        [answer.label == examples.classes[label] for answer, label in zip(answers, labels, strict=True)],
        given_to,
        sum(answer.passes for answer in answers) / len(answers),
    )


def measure(
    memory: BenchmarkLearner,
    tasks: Tasks,
    progress: BenchmarkProgress | None = None,
    watch: Watcher = lambda number, progress: None,
    keep: Callable[[BenchmarkProgress], None] = lambda progress: None,
) -> dict[str, object]:
    """Learn and evaluate all tasks in order; returns the figures, in per cent and points.

    Parameters
    ----------
    progress
        Progress of an interrupted run, whose memory has learned some tasks already.
    keep
        Called with the progress after every task.
    """
    progress = BenchmarkProgress() if progress is None else progress
    last = len(tasks.train) - 1
    for number in range(len(progress.seconds), last + 1):
        if number and memory.incremental:
            progress.novelty.append(novelty_figures(memory.predict, tasks.test, number))
        started = time.monotonic()
        report = memory.learn(name_of(number), tasks.train[number], partial(watch, number))
        progress.seconds.append(round(time.monotonic() - started, 1))
        watch(number, None)
        progress.units.append(report.get("units"))
        progress.free.append(memory.free())
        if number < last and memory.incremental:
            seen = [(name_of(earlier), tasks.test[earlier]) for earlier in range(number + 1)]
            progress.matrix.append([accuracy(memory.predict(test, name), test) for name, test in seen])
            progress.matrix_without_id.append([accuracy(memory.predict(test, None), test) for _, test in seen])
        keep(progress)
    rows = [evaluate_task(memory, task, examples, last + 1) for task, examples in enumerate(tasks.test)]
    return figures(memory, progress, rows)


def figures(memory: BenchmarkLearner, progress: BenchmarkProgress, rows: Sequence[TaskEvaluation]) -> dict[str, object]:
    """The figures of a run, as JSON."""
    whole = sum(row.images for row in rows)

    def mean(values: Sequence[float | None]) -> float | None:
        if any(value is None for value in values):
            return None
        return round(100 * sum((v or 0.0) * row.images for v, row in zip(values, rows, strict=True)) / whole, 2)

    probabilities = torch.tensor([value for row in rows for value in row.probabilities])
    right = torch.tensor([value for row in rows for value in row.right])
    matrix = [*progress.matrix, [row.with_id for row in rows]]
    without = [*progress.matrix_without_id, [row.without_id for row in rows]]
    complete = len(matrix) == len(rows)
    return {
        "with_id": mean([row.with_id for row in rows]),
        "recognised": mean([row.recognised for row in rows]),
        "without_id": mean([row.without_id for row in rows]),
        "average_accuracy": round(100 * average_accuracy(matrix), 2),
        "forgetting": round(100 * forgetting(matrix), 4) if complete else None,
        "forgetting_without_id": round(100 * forgetting(without), 4) if complete else None,
        "backward_transfer": round(100 * backward_transfer(matrix), 4) if complete else None,
        "calibration_error": round(100 * calibration_error(probabilities, right), 2),
        "passes": round(sum(row.passes * row.images for row in rows) / whole, 2),
        "seconds": round(sum(progress.seconds), 1),
        "seconds_per_task": progress.seconds,
        "units_per_task": progress.units,
        "free": [None if share is None else round(100 * share, 2) for share in progress.free],
        "bytes": memory.stored(),
        "novelty": progress.novelty,
        "matrix_with_id": _percentages(matrix),
        "matrix_without_id": _percentages(without),
        "routing": None if any(row.given_to is None for row in rows) else [row.given_to for row in rows],
        "tasks": [
            {"with_id": row.with_id, "recognised": row.recognised, "without_id": row.without_id, "images": row.images}
            for row in rows
        ],
    }


def _percentages(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(100 * value, 2) for value in row] for row in matrix]


def provenance(threads: int) -> dict[str, str]:
    """The commit (marked if the tree differs from it), the machine, and the command line."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads"
    return {
        "commit": described.stdout.strip(),
        "machine": machine,
        "torch": torch.__version__,
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
    }
