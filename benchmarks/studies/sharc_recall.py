"""Recall error of associative memories by the number of stored feature maps.

    python -m benchmarks sharc_recall --data DIR [--dataset split_cifar10] [--out FILE.jsonl]

The backbone is SHARC's, frozen after the first task; patterns are maps of all classes in equal numbers. Cues are the
stored patterns themselves, masked by saliency or corrupted by Gaussian noise. There is one line for each memory, number
of patterns and kind of cue: the squared error over the patterns' squared distance from their mean (1: no better than
the mean), the share of cues whose recall is nearest to their own pattern, and the bytes of the memory. The size of
`gaussian` is constant; `hopfield` stores every pattern.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.harness.datasets import SEQUENCES, MissingData
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.results import append
from benchmarks.studies.sharc_replay import BUDGETS, SIZES, TaskSequence, prepare_sequence
from engram import LearnOptions
from engram.checkpointing.progress import Reporter
from engram.config.sharc import SharcSettings
from engram.context import LearnContext
from engram.methods.sharc.associative_memory import (
    AssociativeMemory,
    GaussianMemory,
    HopfieldMemory,
    NoCompletion,
    recall_error,
)
from engram.methods.sharc.feature_maps import Classifier
from engram.methods.sharc.replay import NewMaps, RecalledMaps, train
from engram.methods.sharc.saliency import mask, saliency
from engram.runtime import configure
from engram.training.trainer import TrainingPhase

COUNTS = (10, 30, 100, 300, 1000, 3000)
QUANTILES = (0.3, 0.5, 0.8, 0.9)
NOISES = (0.25, 0.5, 1.0)
"""Standard deviations of the noise, as multiples of the maps' own."""


@dataclass(frozen=True)
class Patterns:
    """Maps (N, channels, places), their classes (N,), and the saliency of their channels (N, channels)."""

    maps: Tensor
    labels: Tensor
    scores: Tensor

    def first(self, count: int) -> Patterns:
        return Patterns(self.maps[:count], self.labels[:count], self.scores[:count])


def patterns_of(sequence: TaskSequence, count: int) -> Patterns:
    """At most so many maps, classes in turn, with their saliency for a classifier of all classes."""
    maps, labels, start = [], [], 0
    for examples, _, _ in sequence.parts:
        for label in range(len(examples.classes)):
            rows = (examples.labels == label).nonzero().flatten()[: -(-count // 10)]
            maps.append(sequence.cache[id(examples)][rows].float())
            labels.append(torch.full((len(rows),), start + label))
        start += len(examples.classes)
    turn = torch.cat([torch.arange(len(part)) for part in labels]).sort(stable=True).indices[:count]
    all_maps, all_labels = torch.cat(maps)[turn], torch.cat(labels)[turn]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        classifier = Classifier(sequence.layout, [str(label) for label in range(start)])
    nothing = RecalledMaps(all_maps[:0], all_labels[:0])
    fresh = NewMaps(lambda chosen: all_maps[chosen], all_labels)
    run = TrainingPhase("training", (0.0, 1.0), 5, 2e-3, 1)
    context = LearnContext(LearnOptions(), 0, Reporter(), torch.device("cpu"))
    train(classifier, fresh, nothing, run, context.generator(), context)
    parts = zip(torch.split(all_maps, 512), torch.split(all_labels, 512), strict=True)
    scores = torch.cat([saliency(part, labels, classifier) for part, labels in parts])
    return Patterns(all_maps, all_labels, scores)


def memories(patterns: Patterns, settings: SharcSettings) -> dict[str, AssociativeMemory]:
    """Each kind of memory, after learning the patterns."""
    channels, places = patterns.maps.shape[1:]
    classes = int(patterns.labels.max()) + 1
    return {
        "gaussian": GaussianMemory.empty(channels, places, settings.rank).learned(
            patterns.maps, patterns.labels, classes
        ),
        "hopfield": HopfieldMemory.empty(settings.values, channels * places, settings.beta, settings.steps).learned(
            patterns.maps, patterns.labels, classes
        ),
        "none": NoCompletion(),
    }


def recall_curve(patterns: Patterns, settings: SharcSettings) -> Iterator[dict[str, Any]]:
    """Rows of figures for growing numbers of patterns."""
    for count in [*(count for count in COUNTS if count < len(patterns.maps)), len(patterns.maps)]:
        stored = patterns.first(count)
        deviation = float(stored.maps.std())
        for kind, memory in memories(stored, settings).items():
            about = {"memory": kind, "patterns": count, "bytes": memory.nbytes}
            for quantile in QUANTILES:
                found = memory.recall(stored.maps, mask(stored.scores, quantile), stored.labels)
                yield {**about, "cue": "masked", "strength": quantile, **_figures(found, stored.maps)}
            everything = torch.ones(stored.scores.shape, dtype=torch.bool)
            for noise in NOISES:
                generator = torch.Generator().manual_seed(count)
                added = noise * deviation * torch.randn(stored.maps.shape, generator=generator)
                found = memory.recall(stored.maps + added, everything, stored.labels, noise * deviation)
                yield {**about, "cue": "corrupted", "strength": noise, **_figures(found, stored.maps)}


def _figures(found: Tensor, maps: Tensor) -> dict[str, float]:
    nearest = torch.cat([torch.cdist(part, maps.flatten(1)).argmin(1) for part in torch.split(found.flatten(1), 256)])
    right = float((nearest == torch.arange(len(maps))).double().mean())
    return {"error": round(recall_error(found, maps), 5), "identified": round(right, 4)}


def results_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Table of errors by the number of patterns."""
    counts = sorted({row["patterns"] for row in rows})
    table = Table("memory", "cue", *(str(count) for count in counts))
    for kind, cue, strength in dict.fromkeys((row["memory"], row["cue"], row["strength"]) for row in rows):
        found = {
            row["patterns"]: row
            for row in rows
            if (row["memory"], row["cue"], row["strength"]) == (kind, cue, strength)
        }
        cells = [f"{found[count]['error']:.3f} ({100 * found[count]['identified']:.0f}%)" for count in counts]
        table.add_row(kind, f"{cue} {strength}", *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks sharc_recall",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", choices=tuple(BUDGETS), default="split_mnist")
    parser.add_argument("--patterns", type=int, default=max(COUNTS), help="most patterns that are stored")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="append one JSON line for each point of each curve")
    args = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    configure(args.threads)
    try:
        tasks = SEQUENCES[args.dataset](args.data, SIZES[args.dataset, "small"])
    except MissingData as error:
        sys.exit(str(error))
    sequence = prepare_sequence(tasks, args.dataset, "small", 0)
    settings = SharcSettings()
    about = {"benchmark": "sharc_recall", "dataset": args.dataset, **provenance(args.threads)}
    rows = [{**about, **row} for row in recall_curve(patterns_of(sequence, args.patterns), settings)]
    for row in rows:
        if args.out:
            append(args.out, row)
    title = f"{args.dataset}: recall error by stored patterns (share that comes nearest to its own pattern)"
    Console(width=None if sys.stdout.isatty() else 140).print(title, results_table(rows))
