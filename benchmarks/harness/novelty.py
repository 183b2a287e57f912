"""Novelty detection of the next task: AUROC, false alarms and detections before it is learned.

Just before each task is learned, some of its test images are mixed with as many of the tasks learned so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.harness.learners import BenchmarkPrediction
from engram import Examples

IMAGES = 500
"""Number of new images in a measurement, and maximum number of old ones."""

DETECTION_RATE = 0.95
"""Share of the new images that are detected where `fpr95` counts false alarms."""


def novelty_figures(
    predict: Callable[[Examples, str | None], list[BenchmarkPrediction]], tests: Sequence[Examples], number: int
) -> dict[str, float] | None:
    """How well the novelty separates images of task `number`, not yet learned, from those of the tasks before it.

    Returns
    -------
    In per cent: `auroc` of the novelty (50 is chance); `fpr95`, the share of old images whose novelty reaches that of
    95 % of the new ones; `false_alarms` and `found`, the shares of old and new images answered with `known: false`.
    None if the answers have no novelty.
    """
    old = [answer for test in tests[:number] for answer in predict(evenly_spaced(test, IMAGES // number), None)]
    new = predict(evenly_spaced(tests[number], IMAGES), None)
    old_scores = np.array([answer.novelty for answer in old if answer.novelty is not None])
    new_scores = np.array([answer.novelty for answer in new if answer.novelty is not None])
    if len(old_scores) < len(old) or len(new_scores) < len(new):
        return None
    truth = np.concatenate([np.zeros(len(old)), np.ones(len(new))])
    threshold = np.quantile(new_scores, 1 - DETECTION_RATE)
    measured = {
        "auroc": float(roc_auc_score(truth, np.concatenate([old_scores, new_scores]))),
        "fpr95": float((old_scores >= threshold).mean()),
        "false_alarms": sum(answer.known is False for answer in old) / len(old),
        "found": sum(answer.known is False for answer in new) / len(new),
    }
    return {name: round(100 * value, 2) for name, value in measured.items()}


def evenly_spaced(examples: Examples, count: int) -> Examples:
    """At most `count` images, evenly spaced through the examples."""
    if count >= len(examples):
        return examples
    return examples.subset(torch.linspace(0, len(examples) - 1, max(1, count)).long())
