"""A life of learning, measured: tasks one after another, every task judged after each, with its id and without."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from engram import Examples
from engram.metrics import average_accuracy, backward_transfer, calibration_error, forgetting


@dataclass(frozen=True)
class Prediction:
    """What a memory answers for one image."""

    task: str
    label: str
    probability: float


class Learns(Protocol):
    """What is measured: the learner itself, or one behind HTTP."""

    def learn(self, task: str, examples: Examples) -> dict[str, object]: ...

    def predict(self, examples: Examples, task: str | None) -> list[Prediction]: ...


@dataclass(frozen=True)
class Judged:
    """One task's test images, with its id and without."""

    with_id: float
    recognised: float
    without_id: float
    images: int
    probabilities: list[float]
    right: list[bool]


def name_of(task: int) -> str:
    return f"task {task}"


def accuracy_with_id(memory: Learns, task: int, examples: Examples) -> float:
    """Accuracy on one task's images when the task is given."""
    answers = memory.predict(examples, name_of(task))
    labels: list[int] = examples.labels.tolist()
    return sum(a.label == examples.classes[label] for a, label in zip(answers, labels, strict=True)) / len(labels)


def judge(memory: Learns, task: int, examples: Examples) -> Judged:
    """Everything about one task's images."""
    answers, labels = memory.predict(examples, None), examples.labels.tolist()
    found = [answer.task == name_of(task) for answer in answers]
    right = [
        hit and answer.label == examples.classes[label]
        for hit, answer, label in zip(found, answers, labels, strict=True)
    ]
    count = len(labels)
    probabilities = [answer.probability for answer in answers]
    return Judged(
        accuracy_with_id(memory, task, examples), sum(found) / count, sum(right) / count, count, probabilities, right
    )


def measure(memory: Learns, train: Sequence[Examples], test: Sequence[Examples]) -> dict[str, object]:
    """Learn all tasks in order; the figures, in per cent and points."""
    seconds: list[float] = []
    matrix: list[list[float]] = []
    for task, examples in enumerate(train):
        started = time.monotonic()
        report = memory.learn(name_of(task), examples)
        seconds.append(round(time.monotonic() - started, 1))
        matrix.append([accuracy_with_id(memory, earlier, test[earlier]) for earlier in range(task + 1)])
        print(f"{name_of(task)}: {seconds[-1]} s, units {report['units']}, with id {matrix[-1][-1]:.2%}", flush=True)
    rows = [judge(memory, task, examples) for task, examples in enumerate(test)]
    whole = sum(row.images for row in rows)
    probabilities = torch.tensor([value for row in rows for value in row.probabilities])
    right = torch.tensor([value for row in rows for value in row.right])
    return {
        "with_id": round(100 * sum(row.with_id * row.images for row in rows) / whole, 2),
        "recognised": round(100 * sum(row.recognised * row.images for row in rows) / whole, 2),
        "without_id": round(100 * sum(row.without_id * row.images for row in rows) / whole, 2),
        "average_accuracy": round(100 * average_accuracy(matrix), 2),
        "forgetting": round(100 * forgetting(matrix), 4),
        "backward_transfer": round(100 * backward_transfer(matrix), 4),
        "calibration_error": round(100 * calibration_error(probabilities, right), 2),
        "seconds": round(sum(seconds), 1),
        "seconds_per_task": seconds,
        "matrix_with_id": [[round(100 * value, 2) for value in row] for row in matrix],
        "tasks": [
            {"with_id": row.with_id, "recognised": row.recognised, "without_id": row.without_id, "images": row.images}
            for row in rows
        ],
    }


def table(figures: dict[str, object]) -> str:
    """The figures for people."""
    lines = [f"{'':8}{'with id':>10}{'recognised':>12}{'without id':>12}"]
    tasks = figures["tasks"]
    assert isinstance(tasks, list), "measure lists the tasks"
    for number, row in enumerate(tasks):
        lines.append(f"{name_of(number):8}{row['with_id']:>10.2%}{row['recognised']:>12.2%}{row['without_id']:>12.2%}")
    lines.append(
        f"{'all':8}{figures['with_id']:>9}%{figures['recognised']:>11}%{figures['without_id']:>11}%   forgetting "
        f"{figures['forgetting']} points, calibration error {figures['calibration_error']} points, "
        f"{figures['seconds']} s to learn"
    )
    return "\n".join(lines)


def provenance(threads: int) -> dict[str, str]:
    """The commit, with a mark if the tree differed from it, and the machine."""
    described = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    machine = f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads"
    return {"commit": described.stdout.strip(), "machine": machine, "torch": torch.__version__}
