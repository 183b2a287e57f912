"""Accuracy of a ridge over the commons against milliseconds an image.

    python -m benchmarks commons --data DIR [--settings NAME ...] [--train N] [--final] [--out FILE.jsonl]

DIR holds `mnist.npz` and `cifar10.tar.xz`. No network is trained: filters are learned from the first task's images, the
sums of all tasks are added up, and one ridge regression over them answers, with the task's name and without. Settings
are compared on 5,000 images held out of the training split; `--final` learns from all of it and asks the test split.
Milliseconds are those of the processor, the least of many repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.harness.datasets import CIFAR10_ORDER, ImageDataset, Sizes, archive, mnist
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from engram import Definition, InputShape
from engram.nn.commons import Commons, commons_of
from engram.nn.network import pixels
from engram.runtime import configure

HELD_OUT = 5000
REPEATS = 30
BATCHES = (1, 16, 32)
RIDGES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
"""Shares of the mean diagonal."""

SETTINGS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "recipe 2": ("CIFAR-10", {"recipe": 2}),
    "default": ("CIFAR-10", {}),
    "fast": ("CIFAR-10", {"preset": "fast"}),
    "default, mirror": ("CIFAR-10", {"mirror": True}),
    "default, mirror, dead_leaves": ("CIFAR-10", {"mirror": True, "dictionary": "dead_leaves"}),
    "fast, mirror": ("CIFAR-10", {"mirror": True, "preset": "fast"}),
    "large, mirror": ("CIFAR-10", {"mirror": True, "preset": "large"}),
    "largest, mirror": ("CIFAR-10", {"mirror": True, "preset": "largest"}),
    "grey, recipe 2": ("MNIST", {"recipe": 2}),
    "grey, default": ("MNIST", {}),
    "grey, smooth": ("MNIST", {"kind": "smooth"}),
    "grey, learned": ("MNIST", {"kind": "learned"}),
    "grey, large": ("MNIST", {"preset": "large"}),
}
"""Data set and fields of the commons, by name; `recipe` is the definition's."""


def definition_of(shape: InputShape | Mapping[str, Any], fields: Mapping[str, Any]) -> Definition:
    wanted = {name: value for name, value in fields.items() if name != "recipe"}
    return Definition.model_validate({"input": shape, "commons": wanted, "recipe": fields.get("recipe", 3)})


def features_of(commons: Commons, images: Tensor) -> Tensor:
    return torch.cat([commons(pixels(part)) for part in torch.split(images, 256)])


def milliseconds(commons: Commons, images: Tensor) -> dict[str, float]:
    """The least of several repeats, for each of several sizes of a batch, an image."""
    found = {}
    for size in BATCHES:
        batch, least = pixels(images[:size]), float("inf")
        for _ in range(REPEATS):
            began = time.process_time()
            commons(batch)
            least = min(least, time.process_time() - began)
        found[str(size)] = round(1000 * least / size, 3)
    return found


class StandardisedRidge:
    """Ridge regression onto the ten classes, features standardised by what their sums themselves tell.

    Parameters
    ----------
    features, labels
        (N, F), (N,): what is learned from.
    """

    def __init__(self, features: Tensor, labels: Tensor) -> None:
        count, size = features.shape
        self._mean, self._share = features.double().mean(0), torch.bincount(labels, minlength=10).double() / count
        gram, self._moments = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, 10, dtype=torch.float64)
        for part, wanted in zip(torch.split(features, 4096), torch.split(labels, 4096), strict=True):
            centred = part.double() - self._mean
            gram += centred.T @ centred
            self._moments += centred.T @ (one_hot(wanted, 10).double() - self._share)
        deviation = (gram.diagonal() / count).sqrt()
        self._scale = 1 / deviation.clamp_min(0.05 * float(deviation.mean()))
        self._gram = gram * self._scale[:, None] * self._scale

    def scores(self, features: Tensor, ridge: float) -> Tensor:
        """(M, F) -> (M, 10), with a ridge of this share of the mean diagonal."""
        gram = self._gram.clone()
        gram.diagonal().add_(ridge * float(gram.diagonal().mean()))
        factor = torch.linalg.cholesky(gram)
        weights = self._scale[:, None] * torch.cholesky_solve(self._moments * self._scale[:, None], factor)
        found = [(part.double() - self._mean) @ weights + self._share for part in torch.split(features, 4096)]
        return torch.cat(found)


def accuracy(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """In per cent, with the task's name and without; tasks are pairs of classes."""
    rows, task = torch.arange(len(labels)), labels // 2
    pair = scores.view(len(labels), 5, 2)[rows, task]
    return {
        "without_id": round(100 * float((scores.argmax(1) == labels).double().mean()), 2),
        "with_id": round(100 * float((pair.argmax(1) == labels % 2).double().mean()), 2),
    }


def measure(
    name: str, data: ImageDataset, fields: Mapping[str, Any], train: int | None, *, final: bool
) -> dict[str, Any]:
    """The figures of one setting."""
    images, labels = data.train
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    held, rest = (order[:0], order) if final else (order[:HELD_OUT], order[HELD_OUT:])
    rest = rest[:train]
    images, labels, asked = images[rest], labels[rest], (images[held], labels[held])
    asked = data.test if final else asked
    commons = commons_of(definition_of(data.shape, fields)).fitted(images[labels < 2]).eval()
    learned, new = StandardisedRidge(features_of(commons, images), labels), features_of(commons, asked[0])
    found = {ridge: accuracy(learned.scores(new, ridge), asked[1]) for ridge in RIDGES}
    best = max(found, key=lambda ridge: found[ridge]["without_id"])
    return {
        "setting": name,
        "commons": dict(fields),
        "features": commons.features,
        "images": len(images),
        "split": "test" if final else "held out",
        "ridge": best,
        **found[best],
        "milliseconds": milliseconds(commons, images),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks commons", description="Curve of the commons")
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz and cifar10.tar.xz")
    parser.add_argument("--settings", nargs="+", choices=sorted(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--train", type=int, help="images to learn from at most")
    parser.add_argument("--final", action="store_true", help="ask the test split")
    parser.add_argument("--out", type=Path, help="append one JSON line per setting")
    args = parser.parse_args()
    configure(1)
    sets: dict[str, ImageDataset] = {}
    for name in args.settings:
        which, fields = SETTINGS[name]
        if which not in sets:
            folder = args.data
            grey = which == "MNIST"
            sets[which] = mnist(folder, Sizes()) if grey else archive(folder / "cifar10.tar.xz", Sizes(), CIFAR10_ORDER)
        row = {"data": which, **measure(name, sets[which], fields, args.train, final=args.final)}
        print(row, flush=True)
        if args.out:
            append(args.out, {"benchmark": "commons", **provenance(1), **row})
