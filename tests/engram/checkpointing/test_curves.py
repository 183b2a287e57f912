"""Tests of learning curves."""

from __future__ import annotations

import json
from itertools import pairwise

from engram import LearnOptions, Memory
from engram.checkpointing.curves import CurvePoint, thinned
from testing.data.patterns import bars, definition


def test_a_report_has_a_point_for_each_epoch() -> None:
    options = LearnOptions(epochs=4, patience=4, rounds=1, recovery_epochs=2, batch_size=16)
    report = Memory.create(definition("mlp")).learn("task", bars(1), options)
    training = [point for point in report.curves if point.phase == "training"]
    assert [point.epoch for point in training] == [1, 2, 3, 4]
    assert {point.phase for point in report.curves} == {"training", "recovering"}
    assert training[-1].loss < training[0].loss
    assert max(point.held_out_accuracy or 0 for point in training) == report.accuracy["trained"]
    told = json.loads(json.dumps(report.to_dict()))["curves"]
    assert told == [point._asdict() for point in report.curves]


def test_long_curves_keep_their_ends() -> None:
    points = [CurvePoint("training", epoch, 1 / epoch, None, None) for epoch in range(1, 2001)]
    few = thinned(points)
    assert len(few) == 500
    assert [few[0]["epoch"], few[-1]["epoch"]] == [1, 2000]
    epochs = [int(str(point["epoch"])) for point in few]
    assert {later - earlier for earlier, later in pairwise(epochs)} <= {4, 5}
    assert thinned(points[:500]) == [point._asdict() for point in points[:500]]
