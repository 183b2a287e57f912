"""Figures of one version on labelled images, counted batch by batch."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from engram.recognition.predictions import Prediction
from engram.training.class_recall import wilson_interval
from engram.training.evaluation.calibration_error import calibration_error
from engram.training.evaluation.true_labels import TrueLabel, TrueLabels

MOST_CELLS = 10_000
"""Cells of the confusion matrix that are listed, those with the most images first."""

MOST_STRANGERS = 100
"""Labels of strangers that are listed by name, those with the most images first."""


@dataclass
class _Acceptance:
    """How many images there were, how many were called unknown, and of how many that could not be told."""

    images: int = 0
    unknown: int = 0
    untold: int = 0

    def add(self, known: bool | None) -> None:
        self.images += 1
        self.unknown += known is False
        self.untold += known is None

    def to_dict(self) -> dict[str, object]:
        share = _share(self.unknown, self.images)
        return {"images": self.images, "unknown": self.unknown, "unknown_share": share, "untold": self.untold}


@dataclass
class _ClassCount:
    """Images of one class, and how many were answered right, without the task and with it."""

    images: int = 0
    right: int = 0
    right_with_task: int = 0

    def to_dict(self) -> dict[str, object]:
        return {
            "images": self.images,
            "recall": _share(self.right, self.images),
            "interval": list(wilson_interval(self.right, self.images)),
            "recall_with_task": _share(self.right_with_task, self.images),
        }


class VersionFigures:
    """The figures of a version.

    Parameters
    ----------
    labels
        The classes that it knows; images of others are strangers to it.
    """

    def __init__(self, labels: TrueLabels) -> None:
        self._labels = labels
        self._classes: defaultdict[TrueLabel, _ClassCount] = defaultdict(_ClassCount)
        self._confusion: Counter[tuple[TrueLabel, TrueLabel]] = Counter()
        self._routing: Counter[tuple[str, str]] = Counter()
        self._acceptance = _Acceptance()
        self._strangers: defaultdict[str, _Acceptance] = defaultdict(_Acceptance)
        self._probabilities: list[float] = []
        self._right: list[bool] = []

    def add(self, truth: TrueLabel, answer: Prediction, with_task: Prediction) -> None:
        """Count an image of a known class, as it is answered without its task and with it."""
        right, counted = is_right(answer, truth), self._classes[truth]
        counted.images += 1
        counted.right += right
        counted.right_with_task += with_task.label == truth.label
        self._confusion[truth, truth if right else TrueLabel(answer.task, answer.label)] += 1
        self._routing[truth.task, answer.task] += 1
        self._acceptance.add(answer.known)
        self._probabilities.append(answer.probability)
        self._right.append(right)

    def add_stranger(self, folder: Sequence[str], answer: Prediction) -> None:
        """Count an image of a class that the version does not know."""
        self._strangers[folder[-1]].add(answer.known)

    def to_dict(self) -> dict[str, object]:
        """The figures as JSON; shares lie between 0 and 1, and are None of no image."""
        counts = self._classes.values()
        images = sum(one.images for one in counts)
        error = calibration_error(torch.tensor(self._probabilities), torch.tensor(self._right)) if images else None
        return {
            "version": self._labels.version,
            "accuracy": _share(sum(one.right for one in counts), images),
            "accuracy_with_task": _share(sum(one.right_with_task for one in counts), images),
            **self._acceptance.to_dict(),
            "calibration_error": error,
            "tasks": {task: self._task(task) for task in self._labels.classes if any(self._of(task))},
            "confusion": self._confused(),
            "confusion_cut": len(self._confusion) > MOST_CELLS,
            "routing": self._routed(),
            "strangers": self._strange(),
        }

    def _of(self, task: str) -> list[TrueLabel]:
        found = (TrueLabel(task, label) for label in self._labels.classes[task])
        return [truth for truth in found if truth in self._classes]

    def _task(self, task: str) -> dict[str, object]:
        counts = {truth.label: self._classes[truth] for truth in self._of(task)}
        images = sum(one.images for one in counts.values())
        return {
            "images": images,
            "accuracy": _share(sum(one.right for one in counts.values()), images),
            "accuracy_with_task": _share(sum(one.right_with_task for one in counts.values()), images),
            "recognised": _share(self._routing[task, task], images),
            "classes": {label: one.to_dict() for label, one in counts.items()},
        }

    def _confused(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (truth, answered), count in sorted(self._confusion.most_common(MOST_CELLS)):
            found.setdefault(self._labels.shown(*truth), {})[self._labels.shown(*answered)] = count
        return found

    def _routed(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for (task, given_to), count in sorted(self._routing.items()):
            found.setdefault(task, {})[given_to] = count
        return found

    def _strange(self) -> dict[str, object]:
        labels: Mapping[str, _Acceptance] = self._strangers
        whole = _Acceptance(
            sum(one.images for one in labels.values()),
            sum(one.unknown for one in labels.values()),
            sum(one.untold for one in labels.values()),
        )
        largest = sorted(labels, key=lambda label: (-labels[label].images, label))[:MOST_STRANGERS]
        listed = {label: labels[label].to_dict() for label in largest}
        return {**whole.to_dict(), "labels": listed, "unlisted": len(labels) - len(listed)}


def is_right(answer: Prediction, truth: TrueLabel) -> bool:
    """Whether an answer names the true class; where labels of one name are one label, of whichever task has it."""
    return answer.label == truth.label and (answer.task == truth.task or truth.task in answer.top[0].tasks)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
