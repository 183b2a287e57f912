"""Split-MNIST: ten digits as five tasks of two, learned one after another, judged on the test split.

    python -m benchmarks.split_mnist --data DIR [--http] [--seeds 3] [--out results.jsonl]

DIR holds `mnist.npz` with the arrays x_train, y_train, x_test and y_test. No image is kept after its task, and the
answers without a task id come from the one pass that recognises the task. `--http` does the same through a running
service and worker: every task is uploaded as a zip of PNGs, and every test image is predicted over HTTP.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

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
        self.memory = Memory.create(Definition(backbone=backbone, input=shape, seed=seed))

    def learn(self, task: str, examples: Examples) -> dict[str, object]:
        return self.memory.learn(task, examples, LearnOptions()).to_dict()

    def predict(self, examples: Examples, task: str | None) -> list[tuple[str, str]]:
        parts = torch.split(examples.images, 256)
        return [(answer.task, answer.label) for part in parts for answer in self.memory.predict(part, task)]

    def close(self) -> None:
        pass


def judge(memory: PythonMemory | HttpMemory, tests: list[Examples]) -> list[dict[str, float]]:
    """For each task: accuracy with the task id, share recognised, accuracy without."""
    rows = []
    for task, examples in enumerate(tests):
        name, labels = f"task {task}", [examples.classes[label] for label in examples.labels.tolist()]
        given, inferred = memory.predict(examples, name), memory.predict(examples, None)
        count = len(labels)
        rows.append(
            {
                "with_id": sum(answer[1] == label for answer, label in zip(given, labels, strict=True)) / count,
                "recognised": sum(answer[0] == name for answer in inferred) / count,
                "without_id": sum(answer == (name, label) for answer, label in zip(inferred, labels, strict=True))
                / count,
                "images": count,
            }
        )
    return rows


def run(
    memory: PythonMemory | HttpMemory, train: list[Examples], test: list[Examples]
) -> tuple[dict[str, object], list[dict[str, float]]]:
    """Learn the five tasks, then judge all of them: the figures over all tasks, and those of each."""
    seconds, when_learned = [], []
    for task, examples in enumerate(train):
        started = time.monotonic()
        report = memory.learn(f"task {task}", examples)
        seconds.append(round(time.monotonic() - started, 1))
        when_learned.append(judge(memory, [test[task]] if task == 0 else test[: task + 1])[-1]["with_id"])
        print(f"task {task}: {seconds[-1]} s, units {report['units']}, with id {when_learned[-1]:.4f}", flush=True)
    rows = judge(memory, test)
    whole = sum(row["images"] for row in rows)

    def mean(key: str) -> float:
        return round(100 * sum(row[key] * row["images"] for row in rows) / whole, 2)

    forgetting = max(before - row["with_id"] for before, row in zip(when_learned, rows, strict=True))
    figures: dict[str, object] = {
        "with_id": mean("with_id"),
        "recognised": mean("recognised"),
        "without_id": mean("without_id"),
        "forgetting": round(100 * forgetting, 4),
        "seconds": round(sum(seconds), 1),
        "seconds_per_task": seconds,
    }
    return figures, rows


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
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for seed in range(options.seeds):
        memory: PythonMemory | HttpMemory
        memory = HttpMemory(options.backbone, seed) if options.http else PythonMemory(options.backbone, seed)
        try:
            result, rows = run(memory, train, test)
        finally:
            memory.close()
        line = {
            "benchmark": "split_mnist",
            "interface": "http" if options.http else "python",
            "backbone": options.backbone,
            "seed": seed,
            "commit": commit,
            "machine": f"{platform.machine()}, {options.threads} threads",
            **result,
            "tasks": rows,
        }
        print(f"{'':8}{'with id':>10}{'recognised':>12}{'without id':>12}")
        for number, row in enumerate(rows):
            print(f"task {number:<3}{row['with_id']:>10.2%}{row['recognised']:>12.2%}{row['without_id']:>12.2%}")
        print(
            f"{'all':8}{result['with_id']:>9}%{result['recognised']:>11}%{result['without_id']:>11}%"
            f"   forgetting {result['forgetting']} points, {result['seconds']} s to learn"
        )
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
