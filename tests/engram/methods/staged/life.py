"""The life of a model over a network with random weights: two tasks, saved; with what it took."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import safetensors.torch

from engram import Definition, LearnOptions, Memory
from engram.nn.pretrained.backbone import Backbone
from testing.data.patterns import QUICK
from tests.engram.methods.staged.answering import digests
from tests.engram.methods.staged.over_networks import everything, model, pictures, untaught

SIDE = 224
COUNT = 8
"""Pictures a class."""


def lived(name: str, arguments: dict[str, Any], folder: Path, options: LearnOptions = QUICK) -> dict[str, Any]:
    """Create, learn and save a model over an architecture; what it answers, seconds of each step, and megabytes."""
    module, file = untaught(name, arguments, SIDE, COUNT), folder / "weights.safetensors"
    safetensors.torch.save_file({key: one.contiguous() for key, one in module.state_dict().items()}, file)
    del module
    seconds, started = {}, time.monotonic()

    def took(step: str) -> None:
        nonlocal started
        seconds[step], started = round(time.monotonic() - started, 1), time.monotonic()

    network = Backbone.open(file, name, config={"size": SIDE}, arguments=arguments)
    took("inspect")
    commons = {"kind": "pretrained", "backbone": "net"}
    memory = Memory.create(Definition.model_validate({"commons": commons, "width": 0.25}), {"net": network})
    memory.learn("task 0", pictures(0, COUNT, side=SIDE), options)
    took("first task")
    images = everything(1, SIDE)
    before = model(memory).logits_by_shape(["task 0"], images)["task 0"]
    memory.learn("task 1", pictures(1, COUNT, side=SIDE), options)
    took("second task")
    after = model(memory).logits_by_shape(["task 0"], images)["task 0"]
    same = {shape: one.numpy().tobytes() == after[shape].numpy().tobytes() for shape, one in before.items()}
    memory.predict(images)
    took(f"predict {len(images)}, and logits twice")
    heatmap = memory.explain(images[0])
    took(f"heatmap by {heatmap.composite}")
    answers = digests(memory)
    memory.save(folder / "models" / "model")
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"same": all(same.values()), "digests": answers, "seconds": seconds, "megabytes": megabytes}


if __name__ == "__main__":
    json.dump(lived(sys.argv[1], json.loads(sys.argv[2]), Path(sys.argv[3])), sys.stdout)
