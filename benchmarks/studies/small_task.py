"""A task of 200 images over EfficientNet-Lite0: seconds until it is served, and what an answer costs.

    python -m benchmarks small_task --data DIR [--repeats 30] [--out FILE.jsonl]

DIR holds `cifar10.tar.xz` and `tf_efficientnet_lite0.safetensors`. A service and its worker learn two tasks of two
classes of CIFAR-10, at 128 pixels, one after the other: seconds are from the upload to the version that answers. In
this process, the same two tasks answer one image at a time, in turn with the bare network and its preprocessing; the
cost is the processor's, the least of all repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.datasets import Sizes, Tasks, split_cifar10_lite0
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.http_learner import HttpMemory
from benchmarks.harness.presets import preset
from benchmarks.harness.results import append
from benchmarks.harness.usage import family, processor_seconds
from engram import Definition, LearnOptions, Memory
from engram.nn.pretrained.inspection import at_size
from engram.nn.pretrained.network import network
from engram.nn.pretrained.preprocessing import prepare
from engram.runtime import configure

IMAGES = 100
"""Of each class."""

SIZE = 128

FIELDS = {"commons": {"kind": "pretrained", "backbone": "lite0", "size": SIZE}}


def published(definition: Definition, options: LearnOptions, tasks: Tasks) -> dict[str, list[float]]:
    """Of each task the seconds from the upload to the version that answers, those of the processor in all processes,
    and accuracy in per cent with its id."""
    memory = HttpMemory(definition, options, tasks.backbones)
    found: dict[str, list[float]] = {"seconds": [], "cpu_seconds": [], "accuracy": []}
    try:
        for number, (train, test) in enumerate(zip(tasks.train, tasks.test, strict=True)):
            name, worked, began = f"task {number + 1}", processor_seconds(family([memory.pid])), time.monotonic()
            memory.learn(name, train, lambda progress: None)
            found["seconds"].append(round(time.monotonic() - began, 1))
            found["cpu_seconds"].append(round(processor_seconds(family([memory.pid])) - worked, 1))
            labels = [test.classes[label] for label in test.labels.tolist()]
            right = [answer.label == label for answer, label in zip(memory.predict(test, name), labels, strict=True)]
            found["accuracy"].append(round(100 * sum(right) / len(right), 1))
    finally:
        memory.close()
    return found


def costs(definition: Definition, options: LearnOptions, tasks: Tasks, repeats: int) -> dict[str, float]:
    """Milliseconds of processor time for an image: of the bare network, of the commons, and of a whole answer."""
    backbone = tasks.backbones["lite0"]
    memory = Memory.create(definition, tasks.backbones)
    for number, train in enumerate(tasks.train):
        memory.learn(f"task {number + 1}", train, options)
    bare = network(at_size(backbone.description, SIZE), backbone.weights)
    images = tasks.test[0].images[:1]
    commons = memory.method.commons  # type: ignore[attr-defined]  # of a staged model

    def alone() -> None:
        with torch.inference_mode():
            bare.module(prepare(bare.description.preprocessing, images))

    sides: Mapping[str, Callable[[], object]] = {
        "bare": alone,
        "commons": lambda: commons.look(images),
        "answer": lambda: memory.predict(images),
    }
    least = dict.fromkeys(sides, float("inf"))
    for _ in range(repeats):
        for name, work in sides.items():
            began = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - began)
    return {name: round(1000 * seconds, 2) for name, seconds in least.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks small_task", description="A small task over Lite0")
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10 and EfficientNet-Lite0")
    parser.add_argument("--repeats", type=int, default=30, help="of an answer, of which the fastest counts")
    parser.add_argument("--out", type=Path, help="append a JSON line")
    args = parser.parse_args()
    configure(1)
    tasks = split_cifar10_lite0(args.data, Sizes(train=IMAGES, test=100))
    tasks = Tasks(tasks.shape, tasks.train[:2], tasks.test[:2], tasks.backbones)
    options = LearnOptions.model_validate(preset("split_cifar10_lite0", "small", "eidetic").options)
    definition = Definition.model_validate({"input": tasks.shape, **FIELDS})
    learned, cost = published(definition, options, tasks), costs(definition, options, tasks, args.repeats)
    row: dict[str, Any] = {
        "benchmark": "small_task",
        "images": 2 * IMAGES,
        "definition": definition.model_dump(mode="json"),
        "learned": learned,
        "milliseconds": cost,
        "ratio": round(cost["answer"] / cost["bare"], 3),
        **provenance(1),
    }
    print(f"learned and published in {learned['seconds']} s; {learned['accuracy']} % right with the task's name")
    print(f"milliseconds an image: {cost}; an answer is {row['ratio']} of the bare network")
    if args.out:
        append(args.out, row)
