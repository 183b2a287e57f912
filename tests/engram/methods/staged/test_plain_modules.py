"""Tests that plain modules answer as the versions that they were made of, over every kind of commons."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from engram import Definition, Examples, InputShape, Memory
from engram.certificate import probe_batch
from engram.methods.torch_export import export_torch
from testing.data.patterns import QUICK, bars
from tests.engram.methods.staged.over_networks import VARIANTS, again, everything, grown

KNOWN = {True: 1, False: 0, None: -1}


def compared(memory: Memory, images: Tensor) -> None:
    """See that a plain module says what a model says."""
    module, meaning = memory.method.plain()
    with torch.no_grad():
        found = module(images)
    labels, answers = meaning["labels"], memory.predict(images)
    assert isinstance(labels, list)
    assert [labels[label] for label in found["label"].tolist()] == [answer.label for answer in answers]
    assert [memory.tasks[task].name for task in found["task"].tolist()] == [answer.task for answer in answers]
    assert found["known"].tolist() == [KNOWN[answer.known] for answer in answers]
    assert found["novelty"].tolist() == pytest.approx([answer.novelty for answer in answers], abs=1e-4)
    told = found["probabilities"].gather(1, found["label"][:, None])[:, 0]
    assert told.tolist() == pytest.approx([answer.probability for answer in answers], abs=1e-3)
    logits = torch.cat([memory.observe(images, info.name).logits(info.name) for info in memory.tasks], 1)
    assert torch.allclose(found["logits"], logits, atol=1e-3)


QUICKLY = ("adapter", "adopted after a bank")


@pytest.mark.parametrize(
    "name", [name if name in QUICKLY else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS]
)
def test_over_networks(name: str) -> None:
    compared(again(grown(name).parts), everything(6))


def test_small_classes_tasks_of_one_class_and_shared_labels() -> None:
    fields = {"backbone": "mlp", "width": 0.25, "commons": {"features": 64, "patch": 3}, "settings": {"contenders": 2}}
    memory = Memory.create(Definition.model_validate(fields | {"input": InputShape(channels=1, height=12, width=12)}))
    images = []
    for task, (sizes, classes) in enumerate((((30, 8), "ab"), ((20, 20), "bc"), ((24,), "d"))):
        drawn = bars(task, 30, 2, channels=1, side=12)
        kept = torch.cat([(drawn.labels == label).nonzero().flatten()[:size] for label, size in enumerate(sizes)])
        memory.learn(f"t{task}", Examples(drawn.images[kept], drawn.labels[kept], tuple(classes)), QUICK)
        images.append(drawn.images)
    noise = torch.randint(0, 256, (20, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    compared(memory, torch.cat([*images, noise]))


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_they_are_written_over_networks(name: str, tmp_path: Path) -> None:
    memory = again(grown(name).parts)
    done = export_torch(memory.method, probe_batch(memory.definition.input), tmp_path / "a.pt2", {})
    assert done["measured"]["largest_logit_difference"] < 1e-2
    found = torch.export.load(tmp_path / "a.pt2").module()(everything(4))
    answers = memory.predict(everything(4))
    assert [done["labels"][label] for label in found["label"].tolist()] == [answer.label for answer in answers]
