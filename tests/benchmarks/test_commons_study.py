"""Tests of the study of the commons and of its table."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.datasets import ImageDataset
from benchmarks.reports import commons as report
from benchmarks.studies import commons as study
from engram.nn.commons import commons_of


def ten_classes(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 1, 12, 12) uint8, a bright bar for each class, upright or lying."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 60, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % 10
    for image, label in zip(images, labels.tolist(), strict=True):
        place = 1 + 2 * (label % 5)
        lines = image[:, place : place + 2] if label < 5 else image[:, :, place : place + 2]
        lines += 150
    return images, labels


def test_a_setting_is_measured_on_held_out_images_and_on_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "HELD_OUT", 50)
    monkeypatch.setattr(study, "REPEATS", 2)
    data = ImageDataset(tuple("0123456789"), ten_classes(400), ten_classes(60))
    fields = {"features": 128, "patch": 4, "grid": 4}
    row = study.measure("small", data, fields, None, final=False)
    assert (row["split"], row["images"], row["features"]) == ("held out", 350, 128)
    assert row["without_id"] > 60
    assert row["with_id"] >= row["without_id"]
    assert set(row["milliseconds"]) == {"1", "16", "32"}
    final = study.measure("small", data, fields, 300, final=True)
    assert (final["split"], final["images"]) == ("test", 300)


def test_every_setting_can_be_made() -> None:
    shapes = {"CIFAR-10": (3, 32), "MNIST": (1, 28)}
    for which, fields in study.SETTINGS.values():
        channels, side = shapes[which]
        made = commons_of(study.definition_of({"channels": channels, "height": side, "width": side}, fields))
        assert 2000 < made.features <= 8192


def test_scores_are_those_of_the_normal_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.rand(200, 5, generator=generator), torch.arange(200) % 10
    features[:, 0] += labels / 10
    scores = study.StandardisedRidge(features, labels).scores(features[:3], 1e-2)
    scaled = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    hot = torch.nn.functional.one_hot(labels, 10).double()
    weights = torch.linalg.solve(scaled.T @ scaled + 1e-2 * 200 * torch.eye(5), scaled.T @ (hot - 0.1))
    torch.testing.assert_close(scores, scaled[:3] @ weights + 0.1)


def test_the_table_has_both_splits_in_one_row() -> None:
    about = {"benchmark": "commons", "data": "CIFAR-10", "setting": "mirror", "features": 2048, "with_id": 93.0}
    held = {**about, "split": "held out", "without_id": 73.8, "milliseconds": {"1": 0.8, "16": 0.7, "32": 0.66}}
    test = {**about, "split": "test", "without_id": 73.5, "milliseconds": {"1": 0.9, "16": 0.6, "32": 0.65}}
    found = report.table([held, test, {"benchmark": "other"}])
    assert "| CIFAR-10 | mirror | 2048 | 73.8 | 73.5 | 93.0 | 93.0 | 0.80 | 0.60 | 0.65 |" in found
    assert "| 73.8 | – | 93.0 | – |" in report.table([held])
    assert report.table([]) == ""
