"""Fuzzy Split-MNIST: five tasks of two digits that fade into each other, without task labels.

    python -m benchmarks fuzzy_mnist --data DIR [--seeds N] [--scale small|paper] [--threads 2] [--out FILE.jsonl]

DIR holds `mnist.npz`. Every training image comes once, with its label, in batches of 32. Between two tasks the share of
the later one rises linearly from 0 to 1 during half the length of a task (after Lee et al. 2020). The method is `rmn`;
it must detect the tasks, open them, and predict without the name of a task.

Figures are over the test images of all ten digits. `without_id` is the one to compare: the accuracy of the digit when
no task is named in training or testing. `with_id` is the accuracy when a detected task with the image's digit is named,
and `recognised` is the share of images for which such a task is recognised. Five tasks are right. The paper reports
99.1 for learning without any information on tasks "during training (and inference) time", without details; CN-DPM
reports 93.2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness.datasets import MissingData, Sizes, Tasks, split_mnist
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from engram import Definition, Examples, LearnOptions, Memory
from engram.data.examples import batches
from engram.runtime import configure
from engram.streams import Batch, Stream, StreamOptions

BATCH = 32
"""Images in a batch of the stream."""

FADING = 0.5
"""Length of a transition, as a share of a task."""

DEFINITION: dict[str, Any] = {"method": "rmn", "backbone": "mlp", "depth": 3, "width": 100 / 256}
"""Three dense layers, as in the paper; the shared network has the units of two such tasks."""

_PLAIN = {"augment": "none", "label_smoothing": 0.0, "weight_decay": 0.0, "optimiser": "adam", "patience": 10}

SCALES: dict[str, tuple[Sizes, dict[str, Any]]] = {
    "small": (Sizes(train=3000), {**_PLAIN, "epochs": 10}),
    "paper": (Sizes(), {**_PLAIN, "epochs": 20}),
}
"""Images of each class, and the options that differ from the defaults."""


def fuzzy_stream(tasks: Tasks, seed: int) -> Iterator[Batch]:
    """Batches of all training images, in an order in which each task fades into the next."""
    generator = torch.Generator().manual_seed(seed)
    times: list[Tensor] = []
    images: list[Tensor] = []
    labels: list[str] = []
    for number, examples in enumerate(tasks.train):
        last = number == len(tasks.train) - 1
        times.append(number + _arrival_times(len(examples), number == 0, last, generator))
        images.append(examples.images)
        labels.extend(examples.classes[label] for label in examples.labels.tolist())
    order, stream = torch.cat(times).argsort(), torch.cat(images)
    for places in batches(len(order), BATCH):
        rows = order[places]
        yield stream[rows], [labels[row] for row in rows.tolist()]


def _arrival_times(count: int, first: bool, last: bool, generator: torch.Generator) -> Tensor:
    """Times of the images of one task: uniform from 0 to 1, with linear flanks around each end but the outermost."""
    times = torch.rand(count, generator=generator, dtype=torch.float64)
    spread = (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5) * FADING
    moved = times + spread  # the sum of two uniform times has linear flanks
    return torch.where((moved < 0) & first | (moved > 1) & last, times, moved)


def evaluate(memory: Memory, tasks: Tasks) -> dict[str, float]:
    """Shares of test images: right without a task, right with a task of the digit, and recognised as of such a task.

    If several tasks have a digit, because of a falsely detected switch, they count equally.
    """
    right = recognised = count = 0
    named = 0.0
    for examples in tasks.test:
        for rows in batches(len(examples), 512):
            part = examples.subset(rows)
            observation, labels = memory.observe(part.images), _labels(part)
            given = {info.name: observation.predictions(info.name) for info in memory.tasks}
            for row, (answer, label) in enumerate(zip(observation.predictions(), labels, strict=True)):
                holders = [info.name for info in memory.tasks if label in info.classes]
                right += answer.label == label
                recognised += answer.task in holders
                named += sum(given[name][row].label == label for name in holders) / max(1, len(holders))
            count += len(part)
    return {"without_id": right / count, "with_id": named / count, "recognised": recognised / count}


def _labels(examples: Examples) -> list[str]:
    return [examples.classes[label] for label in examples.labels.tolist()]


def run(tasks: Tasks, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """Learn from one stream; returns the figures."""
    definition = Definition.model_validate({**DEFINITION, "input": tasks.shape, "seed": seed})
    learning = LearnOptions.model_validate(options)
    memory, started = Memory.create(definition), time.monotonic()
    stream, seen = Stream(memory, learning, StreamOptions()), 0
    at: list[int] = []
    for images, labels in fuzzy_stream(tasks, seed):
        seen += len(labels)
        at.extend(seen for _ in stream.see(images, labels))
    at.extend(seen for _ in stream.finish())
    seconds = time.monotonic() - started
    return {
        **evaluate(memory, tasks),
        "tasks": [
            {"classes": list(info.classes), "closed_at": when} for info, when in zip(memory.tasks, at, strict=True)
        ],
        "images": seen,
        "recognised_in_stream": stream.passed,
        "left_out": stream.left_out,
        "seconds": round(seconds, 1),
        "definition": definition.model_dump(mode="json"),
        "options": learning.model_dump(mode="json"),
        "stream": stream.stream.model_dump(mode="json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks fuzzy_mnist", description="Fuzzy Split-MNIST")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--scale", default="small", choices=sorted(SCALES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append one JSON line per seed")
    args = parser.parse_args()
    configure(args.threads)
    sizes, options = SCALES[args.scale]
    try:
        tasks = split_mnist(args.data, sizes)
    except MissingData as error:
        sys.exit(str(error))
    for seed in range(args.seeds):
        figures = run(tasks, seed, options)
        row = {
            "benchmark": "fuzzy_mnist",
            "method": "rmn",
            "scale": args.scale,
            "seed": seed,
            **provenance(args.threads),
        }
        if args.out:
            append(args.out, {**row, **figures})
        found = "  ".join("".join(task["classes"]) for task in figures["tasks"])
        print(
            f"seed {seed}: {figures['without_id']:.2%} without id, {figures['with_id']:.2%} with it, "
            f"{figures['recognised']:.2%} of the tasks; found {found}; {figures['seconds']} s",
            flush=True,
        )
