"""Tests of the study of the commons, of its table, and of commons that keep what they saw."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.harness.datasets import ImageDataset
from benchmarks.harness.remembered_commons import SeenImages, remembering
from benchmarks.reports import commons as report
from benchmarks.studies import commons as study
from engram import Definition, LearnOptions, Memory
from engram.checkpointing.pieces import bytes_of
from engram.nn.commons import commons_of
from engram.nn.pretrained.backbone import Backbone
from testing.data.patterns import SIZE, bars
from tests.engram.nn.pretrained.drawn import drawn


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


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    network = drawn("timm/test_efficientnet", {"num_classes": 5}, size=32)
    return Backbone(network.description, lambda: network.file)


def learned(backbone: Backbone, folder: Path | None) -> tuple[Memory, Tensor]:
    """A memory with two tasks, which keeps under a folder what its network sees, and other images."""
    definition = Definition.model_validate(
        {
            "input": {"channels": 1, "height": SIZE, "width": SIZE},
            "commons": [
                {"kind": "pretrained", "backbone": "net", "features": 256, "levels": "last"},
                {"features": 64, "patch": 4},
            ],
            "width": 0.1,
        }
    )
    memory = Memory.create(definition, {"net": backbone})
    memory = memory if folder is None else remembering(memory, folder)
    for number in range(2):
        options = LearnOptions(epochs=1, rounds=1, recovery_epochs=0, augment="none")
        memory.learn(str(number), bars(number).subset(torch.arange(0, 40)), options)
    return memory, bars(0).images[40:60]


def test_what_a_network_saw_is_kept_and_changes_nothing(backbone: Backbone, tmp_path: Path) -> None:
    memory, images = learned(backbone, tmp_path)
    plain, _ = learned(backbone, None)
    assert memory.predict(images) == plain.predict(images)
    assert [bytes_of(one) for one in memory.method.dump().engrams] == [
        bytes_of(one) for one in plain.method.dump().engrams
    ]
    files = {path: path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert files
    assert all(size for path, size in files.items() if path.name != "lock")
    again, _ = learned(backbone, tmp_path)
    assert again.predict(images) == plain.predict(images)
    assert {path: path.stat().st_size for path in files} == files, "every image is looked at once"


def test_images_kept_by_two_processes_have_one_row_each(tmp_path: Path) -> None:
    images = torch.arange(12, dtype=torch.uint8).reshape(6, 1, 1, 2)
    first, second = (SeenImages(tmp_path, 3, (1, 2, 2)) for _ in range(2))
    features = torch.arange(18, dtype=torch.int16).reshape(6, 3)
    maps = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
    for seen, rows in ((first, [0, 1, 2]), (second, [1, 2, 3, 3]), (first, [4, 5])):
        hashes, _ = seen.rows(images[rows])
        seen.append(hashes, features[rows], maps[rows])
    for seen in (first, second):
        _, found = seen.rows(images)
        assert sorted(found) == [0, 1, 2, 3, 4, 5]
        read, drawn_maps = seen.read(found, maps=True)
        assert read.equal(features)
        assert drawn_maps is not None
        assert drawn_maps.equal(maps)
