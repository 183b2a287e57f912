"""Split-MNIST: ten digits as five tasks of two, learned one after another, judged on the test split.

    python -m benchmarks.split_mnist --data DIR [--http] [--seeds 3] [--out results.jsonl]

DIR holds `mnist.npz` with the arrays x_train, y_train, x_test and y_test. No image is kept after its task, and the
answers without a task id come from the one pass that recognises the task. `--http` does the same through a running
service and worker: every task is uploaded as a zip of PNGs, and every test image is predicted over HTTP.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import Prediction, measure, provenance, table
from benchmarks.over_http import HttpMemory
from engram import Definition, Examples, InputShape, LearnOptions, Memory
from engram.runtime import configure

TASKS = 5


def load(folder: Path) -> tuple[list[Examples], list[Examples]]:
    """Training and test examples of the five tasks."""
    path = folder / "mnist.npz"
    if not path.exists():
        sys.exit(f"{path} is missing: it should hold MNIST as x_train, y_train, x_test and y_test")
    arrays = np.load(path, allow_pickle=False)
    parts = []
    for part in ("train", "test"):
        images, digits = torch.from_numpy(arrays[f"x_{part}"])[:, None], torch.from_numpy(arrays[f"y_{part}"]).long()
        tasks = []
        for task in range(TASKS):
            chosen = digits // 2 == task
            names = (str(2 * task), str(2 * task + 1))
            tasks.append(Examples(images[chosen].contiguous(), digits[chosen] % 2, names))
        parts.append(tasks)
    return parts[0], parts[1]


class PythonMemory:
    """The learner used directly."""

    def __init__(self, backbone: str, seed: int) -> None:
        shape = InputShape(channels=1, height=28, width=28)
        self.memory = Memory.create(Definition.model_validate({"backbone": backbone, "input": shape, "seed": seed}))

    def learn(self, task: str, examples: Examples) -> dict[str, object]:
        return self.memory.learn(task, examples, LearnOptions()).to_dict()

    def predict(self, examples: Examples, task: str | None) -> list[Prediction]:
        parts = torch.split(examples.images, 256)
        answers = [answer for part in parts for answer in self.memory.predict(part, task)]
        return [Prediction(answer.task, answer.label, answer.probability) for answer in answers]

    def close(self) -> None:
        """Nothing is open."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Split-MNIST in five tasks of two digits")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--backbone", default="cnn", choices=["mlp", "cnn", "resnet18"])
    parser.add_argument("--http", action="store_true", help="through the service instead of the Python interface")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append one JSON line per seed")
    options = parser.parse_args()
    configure(options.threads)
    train, test = load(options.data)
    about = {
        "benchmark": "split_mnist",
        "interface": "http" if options.http else "python",
        "backbone": options.backbone,
        **provenance(options.threads),
    }
    for seed in range(options.seeds):
        with closing((HttpMemory if options.http else PythonMemory)(options.backbone, seed)) as memory:
            figures = measure(memory, train, test)
        print(table(figures), flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps({**about, "seed": seed, **figures}) + "\n")


if __name__ == "__main__":
    main()
