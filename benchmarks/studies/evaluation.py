"""Figures of `/evaluate` on Split-MNIST beside those of the benchmark, which asks for each answer.

    python -m benchmarks evaluation --data DIR [--train 60] [--test 20]

DIR holds `mnist.npz`. A service learns five tasks of two digits, of so many images a class. The benchmark asks it for
every test image, with the task's id and without, and counts; an evaluation is given the same images, once. It ends with
the status 1 where a figure differs.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.datasets import Sizes, Tasks, split_mnist
from benchmarks.harness.evaluation import measure, name_of
from benchmarks.harness.http_learner import HttpMemory, png
from benchmarks.harness.presets import preset
from engram import Definition, LearnOptions


def labelled(tasks: Tasks) -> bytes:
    """A zip of all test images, `<task>/<class>/<number>.png`."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for number, examples in enumerate(tasks.test):
            for index, (image, label) in enumerate(zip(examples.images, examples.labels.tolist(), strict=True)):
                file.writestr(f"{name_of(number)}/{examples.classes[label]}/{index:06d}.png", png(image))
    return stream.getvalue()


def told(evaluation: Mapping[str, Any], count: int) -> dict[str, object]:
    """The figures of an evaluation, as the benchmark names and rounds them."""
    (version,) = evaluation["versions"]
    tasks = [version["tasks"][name_of(number)] for number in range(count)]

    def percent(share: float) -> float:
        return round(100 * share, 2)

    recognised = sum(one["recognised"] * one["images"] for one in tasks) / version["images"]
    return {
        "with_id": percent(version["accuracy_with_task"]),
        "recognised": percent(recognised),
        "without_id": percent(version["accuracy"]),
        "calibration_error": percent(version["calibration_error"]),
        "routing": [
            [version["routing"][name_of(one)].get(name_of(other), 0) for other in range(count)] for one in range(count)
        ],
        "tasks": [
            {
                "with_id": one["accuracy_with_task"],
                "recognised": one["recognised"],
                "without_id": one["accuracy"],
                "images": one["images"],
            }
            for one in tasks
        ],
    }


def compared(definition: Definition, options: LearnOptions, tasks: Tasks) -> dict[str, tuple[object, object]]:
    """Of each figure, what the benchmark counts and what an evaluation says."""
    memory = HttpMemory(definition, options)
    try:
        counted = measure(memory, tasks)
        found = told(memory.evaluate(labelled(tasks)), len(tasks.test))
    finally:
        memory.close()
    return {name: (counted[name], value) for name, value in found.items()}


def main() -> int:
    """Learn, count and evaluate; returns 1 where a figure differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--train", type=int, default=60, help="images of each class to learn from")
    parser.add_argument("--test", type=int, default=20, help="images of each class to evaluate on")
    given = parser.parse_args()
    tasks = split_mnist(given.data, Sizes(given.train, given.test))
    found = preset("split_mnist", "small", "eidetic")
    definition = Definition.model_validate({**found.definition, "input": tasks.shape})
    figures = compared(definition, LearnOptions.model_validate(found.options), tasks)
    for name, (counted, value) in figures.items():
        print(f"same   {name}: {counted}" if counted == value else f"OTHER  {name}: {counted}, {value}")
    return int(any(counted != value for counted, value in figures.values()))
