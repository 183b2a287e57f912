"""Tests of images of an adopted network's classes: before other tasks, of all classes, in any order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engram import Definition, Examples, Memory
from engram.errors import ExamplesError, TaskExists
from engram.nn.pretrained.backbone import Backbone
from testing.data.networks import ARCHITECTURE, CLASSES, SIZE, weights
from testing.data.patterns import QUICK

TASK = "animals"


def examples(*classes: str) -> Examples:
    """Eight images of each class, of a brightness of its own."""
    generator, labels = torch.Generator().manual_seed(len(classes)), torch.arange(len(classes)).repeat(8)
    noise = torch.randint(0, 60, (len(labels), 3, SIZE, SIZE), generator=generator)
    return Examples((noise + 40 * labels[:, None, None, None]).to(torch.uint8), labels, classes)


@pytest.fixture(scope="module")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model that has adopted a small network and learned nothing."""
    (file := tmp_path_factory.mktemp("network") / "small.safetensors").write_bytes(weights())
    network = Backbone.open(file, ARCHITECTURE, config={"size": SIZE}, classes=CLASSES)
    commons = {"kind": "pretrained", "backbone": "small", "levels": "last"}
    memory = Memory.create(Definition.model_validate({"commons": commons, "backbone": "none"}), {"small": network})
    memory.adopt(TASK, CLASSES)
    memory.save(folder := file.with_name("model"))
    return folder


def test_images_of_its_classes_leave_its_logits_as_they_are(adopted: Path) -> None:
    memory = Memory.load(adopted)
    shown = examples(*CLASSES).images[:3]
    before = memory.method.logits_in_shape(TASK, shown, 1)
    memory.learn(TASK, examples(*CLASSES[::-1]), QUICK)
    assert torch.equal(memory.method.logits_in_shape(TASK, shown, 1), before)
    assert memory.tasks[0].classes == CLASSES
    assert memory.predict(shown)[0].calibrated
    with pytest.raises(TaskExists, match="already has"):
        memory.learn(TASK, examples(*CLASSES))


def test_images_of_other_classes_are_refused(adopted: Path) -> None:
    memory = Memory.load(adopted)
    with pytest.raises(ExamplesError, match="lack 'dog'"):
        memory.learn(TASK, examples(*CLASSES[:3]))
    with pytest.raises(ExamplesError, match="have 'fox'"):
        memory.learn(TASK, examples(*CLASSES, "fox"))


def test_they_come_before_other_tasks(adopted: Path) -> None:
    memory = Memory.load(adopted)
    memory.learn("shades", examples("dark", "light"), QUICK)
    with pytest.raises(TaskExists, match="come before"):
        memory.learn(TASK, examples(*CLASSES))
