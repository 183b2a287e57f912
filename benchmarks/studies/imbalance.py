"""Recall of 1,000 good parts and 10 defects, beside that of a plain balanced classifier.

    python -m benchmarks imbalance [--seeds 10] [--good 1000] [--defects 10] [--methods eidetic ...] [--threads 1]
        [--out FILE.jsonl]

Images are made, 32 x 32 in colour: grey noise, and in those of defects a mark of 2 x 2 red pixels anywhere. Figures
are over 1,000 new images of each class; the calibration error is the one to be expected where defects come as often as
in the training images. Three learners see the same images: recipe 1 (0.1.0), for which an image counts 1 whatever its
class; recipe 2; and a plain classifier of the same network, for as many steps, on batches that are drawn so that both
classes come as often.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from engram import Definition, Examples, LearnOptions, Memory
from engram.data.augmentation import augmented
from engram.nn.backbones import layout_of
from engram.nn.network import Engram, pixels
from engram.runtime import configure
from engram.training.evaluation.calibration_error import calibration_error

SIDE = 32
CLASSES = ("good", "defect")
NEW = 1000
"""New images of each class."""
MARK = (250, 60, 60)


def parts(good: int, defects: int, seed: int) -> Examples:
    """Images of so many good parts and defects."""
    generator = np.random.default_rng(seed)
    images = np.clip(generator.normal(128, 35, (good + defects, SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    for image in images[good:]:
        top, left = generator.integers(4, SIDE - 4, 2)
        image[top : top + 2, left : left + 2] = MARK
    labels = torch.tensor([0] * good + [1] * defects)
    return Examples(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels, CLASSES)


def definition_of(method: str, recipe: int, seed: int) -> Definition:
    shape = {"channels": 3, "height": SIDE, "width": SIDE}
    retention = "features" if method == "sharc" else "none"
    about = {"input": shape, "method": method, "retention": retention, "commons": {"features": 64}}
    return Definition.model_validate({**about, "recipe": recipe, "seed": seed})


def learned(method: str, recipe: int, seed: int, train: Examples, new: Examples) -> dict[str, Any]:
    """The figures of a model that learned `train`, on new images."""
    memory, began = Memory.create(definition_of(method, recipe, seed)), time.monotonic()
    memory.learn("parts", train)
    seconds = time.monotonic() - began
    answers = [answer for part in torch.split(new.images, 256) for answer in memory.predict(part)]
    labels = torch.tensor([CLASSES.index(answer.label) for answer in answers])
    told = torch.tensor([answer.probability for answer in answers])
    return {**_figures(labels, told, train, new), "seconds": round(seconds, 1)}


def plain(seed: int, train: Examples, new: Examples) -> dict[str, Any]:
    """The figures of a plain classifier that is trained on balanced batches."""
    options, layout, began = LearnOptions(), layout_of(definition_of("eidetic", 2, seed)), time.monotonic()
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Engram(layout, "plain", CLASSES, dict.fromkeys(layout.layers, 0), layout.widths)
    size = min(options.batch_size, max(8, len(train) // 20))
    steps = (options.epochs + options.rounds * options.recovery_epochs) * -(-len(train) // size)
    optimiser = torch.optim.AdamW(network.parameters(), options.learning_rate, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    share = 1 / torch.tensor(train.counts()).double()[train.labels]
    for _ in range(steps):
        chosen = torch.multinomial(share, size, replacement=True, generator=generator)
        images = augmented(pixels(train.images[chosen]), options.augment, generator)
        loss = cross_entropy(network.logits(network(images, {})), train.labels[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimiser.step()
        schedule.step()
    seconds = time.monotonic() - began
    network.eval()
    with torch.no_grad():
        logits = [network.logits(network(pixels(part), {})) for part in torch.split(new.images, 256)]
    best = torch.cat(logits).softmax(1).max(1)
    return {**_figures(best.indices, best.values, train, new), "seconds": round(seconds, 1)}


def _figures(labels: Tensor, told: Tensor, train: Examples, new: Examples) -> dict[str, Any]:
    right = labels == new.labels
    recalls = [float(right[new.labels == label].double().mean()) for label in range(len(CLASSES))]
    # Each class as often as it was in the training images.
    weights = torch.tensor(train.counts()).double()[new.labels]
    drawn = torch.multinomial(weights, 20_000, replacement=True, generator=torch.Generator().manual_seed(0))
    return {
        "recall": {name: round(recall, 4) for name, recall in zip(CLASSES, recalls, strict=True)},
        "balanced_accuracy": round(sum(recalls) / len(recalls), 4),
        "calibration_error": round(calibration_error(told[drawn], right[drawn]), 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks imbalance", description="Recall of a rare class")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--good", type=int, default=1000)
    parser.add_argument("--defects", type=int, default=10)
    parser.add_argument("--methods", nargs="+", default=["eidetic"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append one JSON line per learner and seed")
    args = parser.parse_args(arguments)
    configure(args.threads)
    about = {"benchmark": "imbalance", **provenance(args.threads), "good": args.good, "defects": args.defects}
    found: dict[str, list[dict[str, Any]]] = {}
    for seed in range(args.seeds):
        train, new = parts(args.good, args.defects, seed), parts(NEW, NEW, 1000 + seed)
        runs = {f"{method}, recipe {recipe}": (method, recipe) for method in args.methods for recipe in (1, 2)}
        for learner in (*runs, "plain, balanced"):
            row = learned(*runs[learner], seed, train, new) if learner in runs else plain(seed, train, new)
            found.setdefault(learner, []).append(row)
            print(f"seed {seed}, {learner}: {row}", flush=True)
            if args.out:
                append(args.out, {**about, "seed": seed, "learner": learner, **row})
    for learner, rows in found.items():
        balanced = [row["balanced_accuracy"] for row in rows]
        least = [min(row["recall"][name] for row in rows) for name in CLASSES]
        error = np.mean([row["calibration_error"] for row in rows])
        print(
            f"{learner}: balanced accuracy {np.mean(balanced):.3f} ± {np.std(balanced):.3f}, least recall "
            f"good {least[0]:.3f}, defect {least[1]:.3f}, calibration error {error:.3f}"
        )
