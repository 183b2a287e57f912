"""Shares of strangers called known, and of known images called unknown, by how many images a task has.

    python -m benchmarks strangers --data DIR [--draws N] [--images 10 20 50 200] [--recipes 1 2] [--out FILE.jsonl]

DIR holds `mnist.npz` and `cifar10.tar.xz`. A model learns one task of two classes, from 5 images of each class on.
Strangers are noise, the images of another data set, and those of a class that was left out (of all that look like the
task's own the hardest to tell). Each draw takes other images to learn from.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks.harness.datasets import Sizes, Tasks, split_cifar10, split_mnist
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from engram import Definition, Examples, LearnOptions, Memory
from engram.runtime import configure

ASKED = 500
"""Images of each kind that are asked for."""

LEFT_OUT = 1
"""Which task of a data set has the class that was left out."""


def shares(memory: Memory, images: Tensor) -> dict[str, float]:
    """How many of images (N, C, H, W) are answered known, unknown, or neither."""
    answers = [answer.known for part in torch.split(images, 256) for answer in memory.predict(part)]
    return {
        "yes": round(answers.count(True) / len(answers), 4),
        "no": round(answers.count(False) / len(answers), 4),
        "unsaid": round(answers.count(None) / len(answers), 4),
    }


def drawn(examples: Examples, count: int, generator: torch.Generator) -> Examples:
    """So many images of each class."""
    chosen = []
    for label in range(len(examples.classes)):
        members = (examples.labels == label).nonzero().flatten()
        chosen.append(members[torch.randperm(len(members), generator=generator)[:count]])
    return examples.subset(torch.cat(chosen))


def strangers(name: str, data: Tasks, other: Tensor) -> dict[str, Tensor]:
    """Images (N, C, H, W) of each kind that no model of this study has learned."""
    generator = torch.Generator().manual_seed(1)
    shape = (ASKED, data.shape.channels, data.shape.height, data.shape.width)
    return {
        "noise": torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
        "another data set": other[:ASKED],
        "a class left out": data.test[LEFT_OUT].images[:ASKED],
    }


def measure(name: str, data: Tasks, other: Tensor, count: int, recipe: int, draw: int) -> dict[str, Any]:
    """Learn from `count` images of each class; returns the figures."""
    generator = torch.Generator().manual_seed(draw)
    learned = drawn(data.train[0], count, generator)
    memory = Memory.create(Definition.model_validate({"input": data.shape, "seed": draw, "recipe": recipe}))
    began = time.monotonic()
    report = memory.learn("task", learned, LearnOptions(seed=draw))
    test = data.test[0].images[torch.randperm(len(data.test[0]), generator=generator)[:ASKED]]
    kinds: Mapping[str, Tensor] = {"known images": test, **strangers(name, data, other)}
    return {
        "data": name,
        "images": count,
        "recipe": recipe,
        "draw": draw,
        "scores": report.novelty["scores"],
        "level": report.novelty["level"],
        "answers": {kind: shares(memory, images) for kind, images in kinds.items()},
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks strangers", description="Known and unknown images by the size of a task"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and cifar10.tar.xz")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--images", type=int, nargs="+", default=[10, 20, 50, 200], help="of each class")
    parser.add_argument("--recipes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append one JSON line per model")
    args = parser.parse_args()
    configure(args.threads)
    digits = split_mnist(args.data, Sizes(train=max(args.images) * 4, test=ASKED))
    photographs = split_cifar10(args.data, Sizes(train=max(args.images) * 4, test=ASKED))
    grey = torch.cat([task.images[:100] for task in photographs.test]).float().mean(1, keepdim=True)
    inside = interpolate(torch.cat([task.images[:100] for task in digits.test]).float(), size=(32, 32), mode="bilinear")
    sets = {
        "MNIST": (digits, interpolate(grey, size=(28, 28), mode="bilinear").round().to(torch.uint8)),
        "CIFAR-10": (photographs, inside.round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()),
    }
    about = {"benchmark": "strangers", **provenance(args.threads)}
    for name, (data, other) in sets.items():
        for count in args.images:
            for recipe in args.recipes:
                for draw in range(args.draws):
                    row = measure(name, data, other, count, recipe, draw)
                    print(row, flush=True)
                    if args.out:
                        append(args.out, {**about, **row})
