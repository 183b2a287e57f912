"""Small noisy images with a bright bar for each class, and models that learn them in a second."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from engram import CommonsDefinition, Definition, Examples, InputShape, LearnOptions, Memory
from engram.checkpointing.progress import Reporter
from engram.context import LearnContext, OptimiserFactory
from engram.memory import dump, restore
from engram.methods.eidetic.method import Eidetic
from engram.methods.eidetic.staged.method import StagedEidetic
from engram.nn.network import Network
from engram.snapshot import Parts

SIZE = 12
WIDTHS = {"mlp": 0.1, "cnn": 0.5, "resnet18": 0.07, "resnet50": 0.07, "vgg11": 0.04, "vgg16": 0.04}
SIDES = {"vgg11": 32, "vgg16": 32}
"""Sides of images where `SIZE` is too small."""
QUICK = LearnOptions(epochs=1, rounds=1, recovery_epochs=1, tolerance=0.1, augment="none", batch_size=16)


def definition(backbone: str = "cnn", channels: int = 1, **changes: object) -> Definition:
    """A model small enough for a unit test."""
    side = SIDES.get(backbone, SIZE)
    fields: dict[str, object] = {
        "backbone": backbone,
        "input": InputShape(channels=1 if channels == 1 else 3, height=side, width=side),
        "width": WIDTHS[backbone],
        "commons": CommonsDefinition(features=128, patch=5),
    }
    return Definition.model_validate({**fields, **changes})


def bars(task: int, count: int = 48, classes: int = 2, channels: int = 1, side: int = SIZE) -> Examples:
    """`count` images per class; the class determines the position of the bar, the task its direction and brightness.

    Images of another side than `SIZE` show the same, enlarged.
    """
    generator = torch.Generator().manual_seed(task)
    images = torch.randint(0, 60, (count * classes, channels, SIZE, SIZE), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count * classes) % classes
    for image, label in zip(images, labels.tolist(), strict=True):
        place = 2 + 4 * label + task % 2
        lines = image[:, place : place + 2, :] if task % 3 else image[:, :, place : place + 2]
        lines += 120 + 15 * (task % 4)
    images = images if side == SIZE else F.interpolate(images, (side, side))
    return Examples(images, labels, tuple(f"task {task} class {label}" for label in range(classes)))


_learned: dict[tuple[str, int, str], Parts] = {}
"""What `learned` has learned, by definition, tasks and options."""


def learned(backbone: str = "cnn", tasks: int = 2, options: LearnOptions = QUICK, **changes: object) -> Memory:
    """A model that has learned so many tasks; each call returns another copy of what is learned once."""
    wanted = definition(backbone, 1, **changes).model_dump_json(), tasks, options.model_dump_json()
    if wanted not in _learned:
        _learned[wanted] = dump(learned_anew(backbone, tasks, options, **changes))
    parts = _learned[wanted]
    return restore(parts.definition, parts.engrams, parts.recogniser, parts.kept, parts.budget)


def learned_anew(backbone: str = "cnn", tasks: int = 2, options: LearnOptions = QUICK, **changes: object) -> Memory:
    """As `learned`, by learning."""
    memory = Memory.create(definition(backbone, 1, **changes))
    for task in range(tasks):
        memory.learn(f"task {task}", bars(task, side=SIDES.get(backbone, SIZE)), options)
    return memory


def context(options: LearnOptions = QUICK, seed: int = 0, optimiser: OptimiserFactory | None = None) -> LearnContext:
    """A context of learning on the CPU, without progress reports."""
    return LearnContext(options, seed, Reporter(), torch.device("cpu"), optimiser)


def network_of(memory: Memory) -> Network:
    """The network of blocks that an eidetic model answers with."""
    if isinstance(memory.method, StagedEidetic):
        return memory.method.serving().network
    assert isinstance(memory.method, Eidetic), "only eidetic models are made of blocks"
    return memory.method.network
