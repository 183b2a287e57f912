"""Tests of `engines`: folded graphs, rows that depend on others, a row measured really, its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.harness.results import rows_of
from benchmarks.reports import engines as report
from benchmarks.serving import stores
from benchmarks.serving.engines import command
from benchmarks.serving.engines.engines import ENGINES, installed
from benchmarks.serving.engines.folding import folded
from benchmarks.serving.engines.parts import apart, rows_alike
from benchmarks.serving.networks import NETWORKS
from tests.benchmarks.test_serving import TinyNetwork


def test_folded_graphs_compute_the_same_without_normalisations() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean, module.running_var = torch.rand(8), torch.rand(8) + 0.5
    images = torch.rand(2, 3, 9, 9)
    with torch.no_grad():
        expected = network.eval()(images)
        graph = folded(make_fx(network)(images))
        torch.testing.assert_close(graph(images), expected)
    assert not [node for node in graph.graph.nodes if "batch_norm" in str(node.target)]


def test_rows_that_depend_on_others_are_noticed() -> None:
    given = torch.rand(4, 3)

    def centred(some: Tensor) -> tuple[Tensor, ...]:
        return (some - some.mean(0),)

    assert rows_alike(lambda some: (some * 2,), given)
    assert not rows_alike(centred, given)
    assert apart((torch.tensor([4.0]),), (torch.tensor([2.0]),)) == 1.0


def test_a_row_is_measured_really(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "TRAIN", 40)
    monkeypatch.setitem(stores.OPTIONS, "epochs", 1)
    monkeypatch.setitem(NETWORKS, "cnn28", TinyNetwork("cnn28", "cnn", colour=False, task_width=0.1))
    said = ["--rows", "cnn28", "--images", "4", "--threads", "1", "--seconds", "0.01", "--rounds", "1"]
    said += ["--engines", "folded", "--cache", str(tmp_path / "kept"), "--out", str(tmp_path / "out.jsonl")]
    before = torch.get_num_threads()
    try:
        command.main(said)
    finally:
        torch.set_num_threads(before)
    [found] = rows_of(tmp_path / "out.jsonl")
    parts: Any = found["parts"]
    assert list(parts) == ["commons", "stage one", "stage two", "whole"]
    assert set(parts["stage two"]["ms"]) == {"today", "folded"}
    assert parts["commons"]["apart"]["folded"] == 0.0, "commons are whole numbers"
    assert parts["stage two"]["rows_alike"] == {"today": True, "folded": True}
    assert 0 < parts["stage one"]["ms"]["today"] < parts["whole"]["ms"]["today"]
    text = report.table([found, {"benchmark": "x"}])
    assert text.count("| cnn28 | 4 | 1 |") == 4
    assert report.table([{"benchmark": "x"}]) == ""


def test_the_gain_is_that_of_whole_answers() -> None:
    alike = {"today": True, "openvino": False}
    row = {
        "network": "n",
        "images": 1,
        "threads": 1,
        "parts": {
            "commons": {"ms": {"today": 6.0, "openvino": 1.0}, "rows_alike": alike},
            "stage two": {"ms": {"today": 1.0, "openvino": 2.0}, "rows_alike": alike},
            "whole": {"ms": {"today": 10.0}},
        },
    }
    assert report.gain(row, "openvino") == 2.0
    assert report.cell(row["parts"]["commons"], "openvino") == "1.00 (rows)"  # type: ignore[index]
    assert set(report.ENGINES) == set(ENGINES) >= set(installed()) >= {"folded", "inductor"}
