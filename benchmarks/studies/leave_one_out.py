"""Novelty detection with each task of Split-MNIST left out in turn, and with another data set.

    python -m benchmarks leave_one_out --data DIR [--lite0 [--beside SIZE]] [--seeds N] [--images 2000] [--threads 2]
                                       [--out FILE.jsonl]

DIR holds `mnist.npz` and `cifar10.tar.xz`; `--lite0` does the same with Split-CIFAR-10 over EfficientNet-Lite0, whose
file it then holds too, and MNIST far from that. A model learns four of the five tasks. Its novelty is evaluated on the
test images of the four against those of the fifth (near), and against CIFAR-10 in grey at MNIST's size (far). Streams
are drawn from these measured novelties for the monitor behind `GET /v1/models/{model}/novelty`: a million known images
one by one, and a million in bursts of 128 of one class, ten monitors on each, to count false alarms; and 200 streams in
which the fifth task begins after 2,000 known images, to count how many of its images pass before it is suspected, alone
or as half of the traffic.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch.nn.functional import interpolate, pad

from benchmarks.harness.datasets import Sizes, Tasks, split_cifar10, split_cifar10_lite0, split_mnist
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.presets import preset
from benchmarks.harness.remembered_commons import FOLDER, remembering
from benchmarks.harness.results import append
from engram import Definition, LearnOptions, Memory
from engram.drift.monitor import StreamMonitor
from engram.recognition.conformal import ALPHA
from engram.runtime import configure

KNOWN_IMAGES = 1_000_000
MONITORS = 10
"""Number of monitors that share the known images, each with a reference of its own."""
BURST = 128
STREAMS = 200
BEFORE = 2000
LONGEST_DELAY = 4096
"""Images after which a stream counts as undetected."""

Values = NDArray[np.float64]


def novelties(memory: Memory, images: torch.Tensor) -> Values:
    """The novelty of images (N, C, H, W) uint8."""
    answers = [answer for part in torch.split(images, 256) for answer in memory.predict(part)]
    return np.array([answer.novelty for answer in answers])


def auroc(known: Values, new: Values) -> float:
    truth = np.concatenate([np.zeros(len(known)), np.ones(len(new))])
    return float(roc_auc_score(truth, np.concatenate([known, new])))


def false_alarms(classes: Sequence[Values], burst: int, generator: np.random.Generator) -> dict[str, float]:
    """How often streams of known images leave the state `known`, per 100,000 images, by the state they enter.

    Parameters
    ----------
    classes
        The novelties of each class's images.
    burst
        Number of consecutive images of one class, which is drawn in proportion to its number of images.
    """
    sizes = np.array([len(one) for one in classes])
    counts = {"drift": 0, "new task suspected": 0}
    for _ in range(MONITORS):
        monitor, before = StreamMonitor(), "known"
        for drawn in generator.choice(len(classes), KNOWN_IMAGES // MONITORS // burst, p=sizes / sizes.sum()):
            for value in generator.choice(classes[drawn], burst).tolist():
                state = monitor.add(value)
                if state not in ("known", before):
                    counts[state] += 1
                before = state
    return {state: count * 100_000 / KNOWN_IMAGES for state, count in counts.items()}


def delays(known: Values, new: Values, share: float, generator: np.random.Generator) -> list[int]:
    """Number of images from a new task's beginning until it is suspected, for each stream."""
    found = []
    for _ in range(STREAMS):
        monitor = StreamMonitor()
        for value in generator.choice(known, BEFORE):
            monitor.add(float(value))
        new_images, others = generator.choice(new, LONGEST_DELAY), generator.choice(known, LONGEST_DELAY)
        stream = np.where(generator.random(LONGEST_DELAY) < share, new_images, others)
        states = (monitor.add(float(value)) for value in stream)
        found.append(next((n for n, state in enumerate(states, 1) if state == "new task suspected"), LONGEST_DELAY))
    return found


def far(folder: Path) -> torch.Tensor:
    """The test images of CIFAR-10 in grey, at MNIST's size."""
    tasks = split_cifar10(folder, Sizes(train=2, test=200)).test
    images = torch.cat([task.images for task in tasks]).float().mean(1, keepdim=True)
    return interpolate(images, size=(28, 28), mode="bilinear").round().to(torch.uint8)


def digits(folder: Path) -> torch.Tensor:
    """Test images of MNIST in colour, at CIFAR-10's size."""
    images = torch.cat([task.images for task in split_mnist(folder, Sizes(train=2, test=200)).test])
    return pad(images, (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()


@dataclass(frozen=True)
class Setting:
    """What is learned, and what is far from it."""

    tasks: Tasks
    far: torch.Tensor
    """(N, C, H, W) uint8."""
    definition: dict[str, Any]
    options: LearnOptions


def on_digits(folder: Path, images: int, backbone: str) -> Setting:
    """Split-MNIST, CIFAR-10 in grey far from it."""
    return Setting(split_mnist(folder, Sizes(train=images)), far(folder), {"backbone": backbone}, LearnOptions())


def over_lite0(folder: Path, images: int, backbone: str, beside: int | None) -> Setting:
    """Split-CIFAR-10 over EfficientNet-Lite0, MNIST far from it.

    Parameters
    ----------
    beside
        Another size that the network sees images at, in one regression with the first.
    """
    found = preset("split_cifar10_lite0", "small", "eidetic")
    tasks = split_cifar10_lite0(folder, Sizes(train=images))
    fields = {**found.definition, "backbone": backbone}
    if beside is not None:
        network, *others = fields["commons"]
        fields["commons"] = [network, {**network, "size": beside, "together": True}, *others]
    return Setting(tasks, digits(folder), fields, LearnOptions.model_validate(found.options))


def measure(left: int, setting: Setting, seed: int, seen: Path) -> dict[str, Any]:
    """Learn all tasks but `left`; returns the figures."""
    definition = Definition.model_validate({**setting.definition, "input": setting.tasks.shape, "seed": seed})
    tasks, other = list(zip(setting.tasks.train, setting.tasks.test, strict=True)), setting.far
    memory = remembering(Memory.create(definition, setting.tasks.backbones), seen)
    began = time.monotonic()
    for number, (train, _) in enumerate(tasks):
        if number != left:
            memory.learn(f"task {number}", train, setting.options)
    seconds = time.monotonic() - began
    others = [test for number, (_, test) in enumerate(tasks) if number != left]
    classes = [novelties(memory, test.images[test.labels == label]) for test in others for label in (0, 1)]
    known = np.concatenate(classes)
    near, strange = novelties(memory, tasks[left][1].images), novelties(memory, other)
    generator = np.random.default_rng(seed)
    alone, half = (delays(known, near, share, generator) for share in (1.0, 0.5))
    return {
        "left_out": left,
        "auroc_near": round(auroc(known, near), 4),
        "auroc_far": round(auroc(known, strange), 4),
        "unknown": {
            name: round(float((values > 1 - ALPHA).mean()), 4)
            for name, values in (("known", known), ("near", near), ("far", strange))
        },
        "false_alarms_per_100000": false_alarms(classes, 1, generator),
        "false_alarms_per_100000_in_bursts": false_alarms(classes, BURST, generator),
        "delay_alone": {"mean": float(np.mean(alone)), "largest": max(alone)},
        "delay_half": {"mean": float(np.mean(half)), "largest": max(half)},
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks leave_one_out", description="Novelty on Split-MNIST with a task left out"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and cifar10.tar.xz")
    parser.add_argument("--lite0", action="store_true", help="Split-CIFAR-10 over EfficientNet-Lite0")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="where it is kept what the network saw of images")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=2000, help="to learn from, of each class")
    parser.add_argument("--beside", type=int, help="another size at which EfficientNet-Lite0 sees each image as well")
    parser.add_argument("--backbone", help="by default cnn, and over EfficientNet-Lite0 adapter")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append one JSON line per task left out and seed")
    args = parser.parse_args()
    configure(args.threads)
    if args.lite0:
        setting = over_lite0(args.data, args.images, args.backbone or "adapter", args.beside)
    else:
        setting = on_digits(args.data, args.images, args.backbone or "cnn")
    about = {
        "benchmark": "leave_one_out",
        "backbone": setting.definition["backbone"],
        **provenance(args.threads),
    }
    if args.lite0:
        sizes = [part["size"] for part in setting.definition["commons"] if part["kind"] == "pretrained"]
        about["over"] = f"lite0 at {' and '.join(map(str, sizes))} pixels" if len(sizes) > 1 else "lite0"
    rows = []
    for seed in range(args.seeds):
        for left in range(len(setting.tasks.train)):
            row = measure(left, setting, seed, args.cache)
            rows.append(row)
            print(f"seed {seed}: {row}", flush=True)
            if args.out:
                append(args.out, {**about, "seed": seed, "images": args.images, **row})
    for name in ("auroc_near", "auroc_far"):
        values = [row[name] for row in rows]
        print(f"{name}: {np.mean(values):.4f} ± {np.std(values):.4f}, least {min(values):.4f}")
