"""SHARC compared with plain experience replay at equal bytes.

    python -m benchmarks sharc_replay --data DIR [--dataset NAME] [--scale small|paper] [--seeds N] [--out FILE]

All arms share one backbone a seed, frozen after the first task, and one learner; only the replay memory differs. Every
byte counts: masks, labels, steps of quantisation and the associative memory's parameters. `er images` keeps raw pixels,
`er maps` whole maps in the same numbers as SHARC. SHARC's quantile is chosen for each budget by held-out parts of the
training images; the test images serve for the reported figures only.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.harness.datasets import SEQUENCES, MissingData, Sizes, Tasks
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.presets import Scale
from benchmarks.harness.results import append, rows_of
from engram import Definition, Examples, LearnOptions, Memory
from engram.checkpointing.progress import Reporter
from engram.config.sharc import SharcSettings
from engram.context import LearnContext
from engram.data.examples import split
from engram.data.herding import ordered_by_class
from engram.errors import CapacityExhausted
from engram.methods.sharc.feature_maps import Classifier, FeatureMaps
from engram.methods.sharc.learner import TaskLearner
from engram.methods.sharc.method import Sharc
from engram.methods.sharc.replay import Maps, RecalledMaps
from engram.methods.sharc.replay_memory import ReplayMemory
from engram.nn.layout import Layout
from engram.nn.network import pixels
from engram.runtime import configure

QUANTILES = (0.3, 0.5, 0.8, 0.9, 0.97)

_WHOLE: dict[str, Any] = {"quantile": 0.0, "recall": "none"}

ARMS: dict[str, dict[str, Any]] = {
    "er images": _WHOLE,
    "er maps": _WHOLE,
    **{f"sharc {quantile}": {"quantile": quantile} for quantile in QUANTILES},
    "sharc 0.5, random channels": {"quantile": 0.5, "saliency": "random"},
    "sharc 0.5, no recall": {"quantile": 0.5, "recall": "none"},
    "sharc 0.5, hopfield": {"quantile": 0.5, "recall": "hopfield"},
}
"""The compared arms, as settings; `er images` is implemented here."""

KIB = 1024
BUDGETS = {"split_mnist": (16, 32, 64, 256), "split_cifar10": (64, 128, 256, 1024)}
"""KiB."""

FIELDS: dict[str, dict[str, Any]] = {"split_mnist": {}, "split_cifar10": {"width": 2.0}}
SIZES: dict[tuple[str, Scale], Sizes] = {
    ("split_mnist", "small"): Sizes(train=1000),
    ("split_cifar10", "small"): Sizes(train=2000, test=500),
}
EPOCHS: dict[Scale, int] = {"small": 5, "paper": 20}
BACKBONE_EPOCHS: dict[Scale, int] = {"small": 15, "paper": 60}


@dataclass(frozen=True)
class Images:
    """Replay memory of raw images with labels; their maps are computed on recall."""

    maps: FeatureMaps
    images: Tensor
    labels: Tensor

    @property
    def nbytes(self) -> int:
        return self.images.numel() + 2 * len(self.labels)

    def recalled(self) -> RecalledMaps:
        parts = [self.maps(pixels(part)) for part in torch.split(self.images, 512)]
        return RecalledMaps(torch.cat(parts), self.labels)

    def first(self, most: int) -> Images:
        kept = [(self.labels == label).nonzero().flatten()[:most] for label in range(int(self.labels.max()) + 1)]
        rows = torch.cat(kept)
        return Images(self.maps, self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class CachedMapsLearner(TaskLearner):
    """The method's task learner on maps that are computed once for all arms, without augmentation."""

    cache: Mapping[int, Tensor] = field(default_factory=dict)
    """Maps of each `Examples`, by its `id()`."""
    raw: bool = False
    """Whether images are stored instead of maps."""

    def maps_of(self, maps: FeatureMaps, examples: Examples, generator: torch.Generator, augment: str) -> Maps:
        return lambda chosen: self.cache[id(examples)][chosen].float()

    def remember(
        self, maps: FeatureMaps, classifier: Classifier, before: Any, known: int, generator: torch.Generator
    ) -> tuple[Any, dict[str, object]]:
        if not self.raw:
            return super().remember(maps, classifier, before, known, generator)
        classes = known + len(self.train.classes)
        most = self.settings.memory_bytes // ((self.train.images[0].numel() + 2) * classes)
        if most < 1:
            raise CapacityExhausted("not one image of each class fits")
        summaries = maps.summary(self.cache[id(self.train)].float())
        chosen = ordered_by_class(summaries, self.train.labels, self.settings.keep, most, generator)
        images, labels = self.train.images[chosen], self.train.labels[chosen] + known
        if isinstance(before, Images):
            earlier = before.first(most)
            images, labels = torch.cat([earlier.images, images]), torch.cat([earlier.labels, labels])
        after = Images(maps, images, labels)
        return after, {"memory": {"maps": len(labels), "bytes": {"all": after.nbytes}}}

    def remember_once(
        self, maps: FeatureMaps, classifier: Classifier, before: Any, known: int, generator: torch.Generator
    ) -> tuple[Any, dict[str, object]]:
        return self.remember(maps, classifier, before, known, generator)  # no task here is ever resumed


@dataclass(frozen=True)
class TaskSequence:
    """The tasks of one seed, with the maps of all their images."""

    layout: Layout
    maps: FeatureMaps
    parts: Sequence[tuple[Examples, Examples, Examples]]
    """Training, held-out and test images of each task."""
    cache: Mapping[int, Tensor]


def prepare_sequence(tasks: Tasks, dataset: str, scale: Scale, seed: int) -> TaskSequence:
    """Train the backbone on the first task by the method itself, and compute the maps of all images."""
    fields = {"method": "sharc", "retention": "features", "seed": seed, **FIELDS[dataset]}
    options = LearnOptions(epochs=BACKBONE_EPOCHS[scale], augment="shift+flip" if "cifar" in dataset else "shift")
    settings = {"recognise": "head"}
    memory = Memory.create(Definition.model_validate({"input": tasks.shape, "settings": settings, **fields}))
    parts = [(*split(train, 0.1, seed), test) for train, test in zip(tasks.train, tasks.test, strict=True)]
    first, held_out, _ = parts[0]
    memory.learn("first", Examples(first.images, first.labels, first.classes, held_out), options)
    assert isinstance(memory.method, Sharc), "the method was named"
    maps = memory.method.maps
    assert maps is not None, "a task was learned"
    cache = {}
    for three in parts:
        for examples in three:
            found = [maps(pixels(part)).to(torch.float16) for part in torch.split(examples.images, 512)]
            cache[id(examples)] = torch.cat(found)
    return TaskSequence(memory.method.layout, maps, parts, cache)


def run_arm(sequence: TaskSequence, arm: str, kib: int, scale: Scale, seed: int) -> dict[str, object]:
    """Learn all tasks with one arm; returns accuracies in per cent, with and without a task id, and bytes."""
    settings = SharcSettings(memory_bytes=kib * KIB, recognise="head", **ARMS[arm])
    options = LearnOptions(epochs=EPOCHS[scale], augment="none")
    shared: Classifier | None = None
    replay_memory: Any = None
    details: dict[str, Any] = {}
    for number, (train, held_out, _) in enumerate(sequence.parts):
        learner = CachedMapsLearner(
            sequence.layout,
            settings,
            train,
            held_out,
            LearnContext(options, 1000 * seed + number, Reporter(), torch.device("cpu")),
            cache=sequence.cache,
            raw=arm == "er images",
        )
        outcome = learner.learn(sequence.maps, shared, replay_memory)
        shared, replay_memory, details = outcome.shared, outcome.replay_memory, outcome.details
    assert shared is not None, "there are tasks"
    found: dict[str, object] = {"bytes": replay_memory.nbytes, "maps": details["memory"]["maps"]}
    if isinstance(replay_memory, ReplayMemory):
        found["recall_error"] = details["memory"]["recall_error"]
    for name, part in (("held_out", 1), ("test", 2)):
        found[name], found[f"{name}_with_id"] = accuracies(sequence, shared, part)
    return found


@torch.no_grad()
def accuracies(sequence: TaskSequence, classifier: Classifier, part: int) -> tuple[float, float]:
    """Accuracies over all tasks in per cent: among all classes, and among the task's own."""
    right = within = count = start = 0
    for three in sequence.parts:
        examples, classes = three[part], len(three[part].classes)
        logits = torch.cat([classifier(maps.float()) for maps in torch.split(sequence.cache[id(examples)], 512)])
        right += int((logits.argmax(1) == examples.labels + start).sum())
        within += int((logits[:, start : start + classes].argmax(1) == examples.labels).sum())
        count, start = count + len(examples), start + classes
    return round(100 * right / count, 2), round(100 * within / count, 2)


def run(data: Path, dataset: str, scale: Scale, seed: int, out: Path | None) -> list[dict[str, Any]]:
    """Rows of all arms and budgets of one seed; those that `out` has are not run again."""
    done = {(row["arm"], row["kib"]): row for row in (rows_of(out) if out else []) if _same(row, dataset, scale, seed)}
    rows: list[dict[str, Any]] = []
    sequence: TaskSequence | None = None
    for kib in BUDGETS[dataset]:
        for arm in ARMS:
            row = done.get((arm, kib))
            if row is None:
                sequence = sequence or prepare_sequence(
                    SEQUENCES[dataset](data, SIZES.get((dataset, scale), Sizes())), dataset, scale, seed
                )
                row = {
                    "benchmark": "sharc_er",
                    "dataset": dataset,
                    "scale": scale,
                    "seed": seed,
                    "arm": arm,
                    "kib": kib,
                }
                try:
                    row |= run_arm(sequence, arm, kib, scale, seed)
                except CapacityExhausted as error:
                    row["refused"] = str(error)
                row |= provenance(torch.get_num_threads())
                print(arm, kib, {name: row.get(name) for name in ("test", "maps", "bytes")}, flush=True)
                if out:
                    append(out, row)
            rows.append(row)
    return rows


def _same(row: Mapping[str, Any], dataset: str, scale: str, seed: int) -> bool:
    return (row.get("dataset"), row.get("scale"), row.get("seed")) == (dataset, scale, seed)


def results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table of mean test accuracies without a task id; `chosen` has the quantile that is best on held-out images."""
    budgets = sorted({int(row["kib"]) for row in rows})
    table = Table("what is kept", *(f"{kib} KiB" for kib in budgets))
    arms = [*ARMS, "sharc, chosen"]

    def mean(arm: str, kib: int, name: str) -> float | None:
        values = [row[name] for row in rows if (row["arm"], row["kib"]) == (arm, kib) and name in row]
        return sum(values) / len(values) if values else None

    for arm in arms:
        cells = []
        for kib in budgets:
            name = arm
            if arm == "sharc, chosen":
                name = max((f"sharc {quantile}" for quantile in QUANTILES), key=lambda a: mean(a, kib, "held_out") or 0)
            value, maps = mean(name, kib, "test"), mean(name, kib, "maps")
            cells.append("no room" if value is None else f"{value:.2f} ({maps:.0f})")
        table.add_row(arm, *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sharc_replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", choices=tuple(BUDGETS), action="append")
    parser.add_argument("--scale", choices=["small", "paper"], default="small")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append one JSON line for each arm, budget and seed")
    args = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    configure(args.threads)
    for dataset in args.dataset or tuple(BUDGETS):
        try:
            rows = [row for seed in range(args.seeds) for row in run(args.data, dataset, args.scale, seed, args.out)]
        except MissingData as error:
            sys.exit(str(error))
        Console(width=None if sys.stdout.isatty() else 140).print(
            f"{dataset}: accuracy in % (maps kept)", results_table(rows)
        )
