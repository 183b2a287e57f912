"""Tests of the benchmark of learning, and of the plain loop beside it."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.reports import learning as report
from benchmarks.studies.learning import LayeredNetwork, logits_of, measured, train
from engram import Definition, LearnOptions
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, pixels
from tests.benchmarks.small import bar_tasks

TASKS = bar_tasks(2)
DEFINITION = Definition.model_validate({"input": TASKS.shape, "backbone": "cnn", "width": 0.5})
OPTIONS = LearnOptions(epochs=8, rounds=1, augment="none", batch_size=16)


def test_the_plain_loop_learns_a_network_of_the_same_widths() -> None:
    before, layout = LayeredNetwork(DEFINITION, TASKS.train[0], OPTIONS.seed), layout_of(DEFINITION)
    torch.manual_seed(OPTIONS.seed)
    engram = Engram(layout, "same", ("a", "b"), dict.fromkeys(layout.layers, 0), dict(layout.widths), ()).eval()
    some = TASKS.test[0].subset(torch.arange(8))
    assert torch.equal(logits_of(before, some), engram.answer(pixels(some.images), {}))
    after = train(DEFINITION, TASKS.train[0], OPTIONS, 8)
    judged = TASKS.test[0]
    right = [float((logits_of(net, judged).argmax(1) == judged.labels).double().mean()) for net in (before, after)]
    assert right[1] > max(0.9, right[0])
    again = train(DEFINITION, TASKS.train[0], OPTIONS, 8)
    assert torch.equal(again.head.weight, after.head.weight)


def test_rows_say_what_both_sides_took() -> None:
    row: dict[str, Any] = {"benchmark": "learning", "images": 20, "definition": DEFINITION.model_dump(mode="json")}
    row |= measured(DEFINITION, OPTIONS, TASKS)
    for side in ("engram", "plain", "plain_fused"):
        assert len(row[side]["cpu_seconds"]) == len(row[side]["accuracy"]) == 2
        assert min(row[side]["cpu_seconds"]) > 0
    assert len(row["epochs"]) == 2
    assert all(1 <= epochs <= OPTIONS.epochs for epochs in row["epochs"])
    assert {"training", "looking"} <= row["engram"]["phases"].keys()
    expected = sum(row["engram"]["cpu_seconds"]) / sum(row["plain"]["cpu_seconds"])
    assert abs(row["cpu_ratio"] / expected - 1) < 0.01
    slower = {**row, "engram": {**row["engram"], "cpu_seconds": [900.0, 900.0]}}
    head, _, cells = report.table([slower, row, {"benchmark": "other"}]).splitlines()[2:]
    assert head.count("|") == cells.count("|")
    assert f"| {expected:.2f} |" in cells, "the fastest of each side"
    earlier = {name: value for name, value in row.items() if name != "plain_fused"}
    assert f"| {expected:.2f} | – |" in report.table([earlier])
    assert report.table([{"benchmark": "other"}]) == ""
    newer = {**slower, "commit": "of tomorrow"}
    assert "| 1800.0 |" in report.table([row, newer]), "of the newest commit alone"
