"""Tests of recall by class: Wilson's interval beside SciPy's, and what cannot be measured."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest

from engram import Examples, LearnOptions
from engram.errors import RecallUnmeasurable
from engram.training.class_recall import (
    ClassRecall,
    balanced_accuracy,
    expect_measurable,
    recall_warnings,
    wilson_interval,
)


@pytest.mark.parametrize(("right", "count"), [(0, 1), (1, 1), (0, 10), (8, 10), (10, 10), (95, 100), (1, 1000)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_of_nothing_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def held_out(*counts: int) -> Examples:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Examples(torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8), labels, ("ok", "defect")[: len(counts)])


def test_a_lost_class_shows() -> None:
    given = held_out(99, 1)
    recalls = ClassRecall.of(given.labels == 0, given)
    assert recalls["ok"].to_dict() == {"held_out": 99, "recall": 1.0, "interval": [pytest.approx(0.96265, abs=1e-5), 1]}
    assert recalls["defect"].to_dict()["recall"] == 0.0
    assert balanced_accuracy(recalls) == 0.5
    assert recall_warnings(recalls) == [
        "the recall of 'defect' rests on 1 held-out image; more would tell how it fares"
    ]
    many = {f"kind {number}": ClassRecall(number + 1, 1) for number in range(9)}
    assert recall_warnings(many) == [
        "the recall of 9 classes rests on fewer than 20 held-out images each, of 'kind 0' on 1"
    ]


def test_a_small_task_is_warned_of_once() -> None:
    sentence = "the recall of 2 classes rests on fewer than 20 held-out images each, of 'defect' on 3"
    assert recall_warnings({"ok": ClassRecall(19, 19), "defect": ClassRecall(3, 1)}) == [sentence]
    assert recall_warnings({"ok": ClassRecall(20, 20), "defect": ClassRecall(3, 1)}) == [
        "the recall of 'defect' rests on 3 held-out images; more would tell how it fares"
    ]
    assert recall_warnings({"ok": ClassRecall(20, 20), "defect": ClassRecall(20, 1)}) == []
    assert recall_warnings({"ok": ClassRecall(2, 2)}) == [
        "the recall of 'ok' rests on 2 held-out images; more would tell how it fares"
    ]
    assert recall_warnings({}) == []


def test_a_recall_is_asked_of_enough_images_only() -> None:
    upload = held_out(300, 199)
    expect_measurable(upload, LearnOptions(), 2)
    expect_measurable(upload, LearnOptions(min_recall=0.9), 2)  # 30 and 20
    with pytest.raises(RecallUnmeasurable, match=r"'defect' has 19;"):
        expect_measurable(held_out(300, 194), LearnOptions(min_recall=0.9), 2)
    with pytest.raises(RecallUnmeasurable, match="'ok' has 15, 'defect' has 10"):
        expect_measurable(held_out(150, 100), LearnOptions(min_recall=0.9), 2)
    own = Examples(upload.images, upload.labels, upload.classes, held_out=held_out(20, 19))
    with pytest.raises(RecallUnmeasurable, match="'defect' has 19"):
        expect_measurable(own, LearnOptions(min_recall=0.1), 2)
