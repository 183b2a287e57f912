"""Processor time of learning Split-MNIST, against a plain loop over the same networks and epochs.

    python -m benchmarks learning --data DIR [--images 1000] [--repeats 3] [--set NAME=VALUE] [--out FILE.jsonl]

DIR holds `mnist.npz`. One model learns the five tasks one after another; after each, the plain loop trains a network of
its own for the same task: the same layout, optimiser, schedule, batches, augmentation and label smoothing, for as many
epochs, evaluated after each on the same held-out images, layer by layer as it is written, and neither pruned nor
recognised. The same loop is run with PyTorch's fused optimiser as well. All run in this process, in turn.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness.datasets import Sizes, Tasks, split_mnist
from benchmarks.harness.evaluation import provenance
from benchmarks.harness.plan import BadOverride, overridden
from benchmarks.harness.results import append
from engram import Definition, Examples, LearnOptions, Memory
from engram.data.augmentation import augmented
from engram.data.examples import EVALUATION_BATCH, batches, split
from engram.nn.backbones import layout_of
from engram.nn.layout import IMAGE
from engram.nn.network import Engram, pixels
from engram.runtime import configure
from engram.training.optimisers import optimiser_of
from engram.training.trainer import STEPS_PER_EPOCH, TrainingPhase

T = TypeVar("T")


class LayeredNetwork(nn.Module):
    """An untrained network for one task alone, of the widths that an engram begins with: its layers, one by one."""

    def __init__(self, definition: Definition, examples: Examples, seed: int) -> None:
        super().__init__()
        layout = layout_of(definition)
        torch.manual_seed(seed)
        engram = Engram(layout, "plain", examples.classes, dict.fromkeys(layout.layers, 0), dict(layout.widths), ())
        self.blocks, self.head = engram.blocks, engram.head
        self._sources = {node.name: node.sources for node in layout.nodes}

    def forward(self, images: Tensor) -> Tensor:
        values = {IMAGE: images}
        for name, block in self.blocks.items():
            values[name] = block(*(values[source] for source in self._sources[name]))
        logits: Tensor = self.head(values[name])
        return logits


def train(
    definition: Definition, examples: Examples, options: LearnOptions, epochs: int, *, fused: bool = False
) -> LayeredNetwork:
    """A network trained as anybody would write it down, which ends with its best epoch.

    Parameters
    ----------
    epochs
        How many: where each side stopped by its own figures, one would often do half of the other's work.
    fused
        Whether the optimiser takes its steps in one operation, which has to be asked for.
    """
    learned, held_out = split(examples, options.held_out, options.seed, recipe=definition.recipe)
    generator = torch.Generator().manual_seed(options.seed)
    net = LayeredNetwork(definition, examples, options.seed)
    optimiser = optimiser_of(options, net.parameters(), fused=fused)
    size = min(options.batch_size, max(8, len(learned) // STEPS_PER_EPOCH))
    steps, phase = -(-len(learned) // size), TrainingPhase.to_plateau(options)
    step, best = 0, (float("inf"), net.state_dict())
    for _ in range(epochs):
        net.train()
        for chosen in batches(len(learned), size, generator):
            for group in optimiser.param_groups:
                group["lr"] = phase.rate(step, steps, options.schedule)
            images = augmented(pixels(learned.images[chosen]), options.augment, generator)
            loss = F.cross_entropy(net(images), learned.labels[chosen], label_smoothing=options.label_smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimiser.step()
            step += 1
        judged = F.cross_entropy(logits_of(net, held_out), held_out.labels).item()
        if judged < best[0]:
            best = judged, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(best[1])
    return net


@torch.no_grad()
def logits_of(net: LayeredNetwork, examples: Examples) -> Tensor:
    """(N, classes) of a network in eval mode, which it stays in."""
    net.eval()
    parts = torch.split(examples.images, EVALUATION_BATCH)
    return torch.cat([net(pixels(part)) for part in parts])


@dataclass
class Side:
    """Times and accuracies of one side, task by task."""

    cpu_seconds: list[float] = field(default_factory=list)
    """Of this process."""
    wall_seconds: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    """On the test images, the task given."""

    def timed(self, work: Callable[[], T]) -> T:
        """What `work` gives; its time is noted."""
        worked, began = time.process_time(), time.monotonic()
        found = work()
        self.cpu_seconds.append(round(time.process_time() - worked, 3))
        self.wall_seconds.append(round(time.monotonic() - began, 3))
        return found


def measured(definition: Definition, options: LearnOptions, tasks: Tasks) -> dict[str, Any]:
    """Learn all tasks on both sides, in turn; returns the figures."""
    ours, plain, fused, phases, epochs = Side(), Side(), Side(), dict[str, float](), list[int]()
    memory = Memory.create(definition)
    for number, (examples, test) in enumerate(zip(tasks.train, tasks.test, strict=True)):
        name = f"task {number + 1}"
        found = ours.timed(partial(memory.learn, name, examples, options))
        for phase, seconds in found.phases.items():
            phases[phase] = round(phases.get(phase, 0.0) + seconds, 3)
        epochs.append(sum(point.phase == "training" for point in found.curves))
        net = plain.timed(partial(train, definition, examples, options, epochs[-1]))
        quick = fused.timed(partial(train, definition, examples, options, epochs[-1], fused=True))
        answers = [one.label for part in torch.split(test.images, 256) for one in memory.predict(part, name)]
        rights = [answer == test.classes[label] for answer, label in zip(answers, test.labels.tolist(), strict=True)]
        ours.accuracy.append(round(sum(rights) / len(rights), 4))
        for side, its in ((plain, net), (fused, quick)):
            right = logits_of(its, test).argmax(1) == test.labels
            side.accuracy.append(round(float(right.double().mean()), 4))
    return {
        "epochs": epochs,
        "engram": {**vars(ours), "phases": phases},
        "plain": vars(plain),
        "plain_fused": vars(fused),
        "cpu_ratio": round(sum(ours.cpu_seconds) / sum(plain.cpu_seconds), 3),
        "cpu_ratio_fused": round(sum(ours.cpu_seconds) / sum(fused.cpu_seconds), 3),
        "wall_ratio": round(sum(ours.wall_seconds) / sum(plain.wall_seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks learning", description="Learning Split-MNIST against a plain loop"
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist.npz")
    parser.add_argument("--images", type=int, default=1000, help="of each class to learn from")
    parser.add_argument("--repeats", type=int, default=3, help="of which the table has the fastest")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="overrides", help="override")
    parser.add_argument("--out", type=Path, help="append one JSON line per repeat")
    args = parser.parse_args()
    configure(args.threads)
    tasks = split_mnist(args.data, Sizes(train=args.images, test=500))
    try:
        fields, given = overridden({"backbone": "cnn"}, {}, args.overrides)
    except BadOverride as error:
        sys.exit(str(error))
    options = LearnOptions.model_validate(given)
    definition = Definition.model_validate({"input": tasks.shape, **fields})
    about = {
        "benchmark": "learning",
        "images": args.images,
        "definition": definition.model_dump(mode="json"),
        "options": options.model_dump(mode="json"),
        **provenance(args.threads),
    }
    for repeat in range(args.repeats):
        row = {**about, "repeat": repeat, **measured(definition, options, tasks)}
        print(
            f"run {repeat + 1}: {row['cpu_ratio']} of processor time, {row['cpu_ratio_fused']} of that with a fused "
            f"optimiser, {row['wall_ratio']} of time",
            flush=True,
        )
        if args.out:
            append(args.out, row)
