"""Comparison of saved models on the processor and on the second device, in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engram import Memory
from engram.certificate import disagreement, logit_bytes
from engram.checkpointing.pieces import read_all
from engram.memory import restore
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.commons.pretrained_commons import PretrainedCommons
from engram.nn.pretrained.network import PretrainedNetwork
from engram.snapshot import read
from testing.processes import second_device


def loaded(folder: Path, reuse: Memory | None = None) -> Memory:
    """A saved model that will only answer."""
    parts = read(folder)
    return restore(parts.definition, read_all(parts.engrams), parts.recogniser, None, parts.budget, reuse)


def brought(memory: Memory) -> list[PretrainedNetwork]:
    """The networks that a model looks through."""
    assert isinstance(memory.method, StagedEidetic)
    return [one.network for one in memory.method.commons.modules() if isinstance(one, PretrainedCommons)]


def near(some: Tensor, others: Tensor) -> bool:
    """Whether logits lie within the bound of certificates."""
    return disagreement(logit_bytes(some), logit_bytes(others)) is None


def compared(folder: Path) -> dict[str, Any]:
    """What a model does on the device of another, and on the processor."""
    shape = read(folder).definition.input
    images = torch.randint(0, 256, (9, shape.channels, shape.height, shape.width), dtype=torch.uint8)
    here, there = loaded(folder), loaded(folder).to(second_device.NAME)
    beside = loaded(folder, there)
    method, other = there.method, beside.method
    assert isinstance(method, StagedEidetic)
    assert isinstance(other, StagedEidetic)
    names = [info.name for info in here.tasks]
    mine, its = (one.method.logits_by_shape(names, images) for one in (here, there))
    answers, serving = here.predict(images, top_k=2), method.serving()
    networks = [brought(one) for one in (there, beside)]
    same = {
        "answers": answers == there.predict(images, top_k=2) == beside.predict(images, top_k=2),
        "of all": here.predict(images, contenders="all") == there.predict(images, contenders="all"),
        "of one task": all(here.predict(images, name) == there.predict(images, name) for name in names),
        "logits": all(torch.equal(mine[name][shape], its[name][shape]) for name in names for shape in mine[name]),
        "near": all(near(mine[name][shape], its[name][shape]) for name in names for shape in mine[name]),
        "heatmap": torch.equal(here.explain(images[0]).relevance, there.explain(images[0]).relevance),
        "shared": other.serving().served[-1].task is serving.served[-1].task,
        "one network": all(one is another for one, another in zip(*networks, strict=True)),
        "back": answers == there.to("cpu").predict(images, top_k=2),
    }
    moved = loaded(folder).to(second_device.NAME).method
    assert isinstance(moved, StagedEidetic)
    modules = [moved.serving().network, moved.commons, *(one.module for one in brought(loaded(folder, beside)))]
    seen = [one for one in other.commons.modules() if isinstance(one, PretrainedCommons)]
    same["one classifier"] = all(one.outputs() is one.outputs() for one in seen)
    placed = {one.device.type for module in modules for one in (*module.parameters(), *module.buffers())}
    return {"same": same, "devices": sorted(placed), "environment": moved.environment()["device"]}


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    second_device.register()
    json.dump({folder.name: compared(folder) for folder in map(Path, sys.argv[1:])}, sys.stdout)
