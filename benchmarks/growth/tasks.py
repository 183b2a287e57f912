"""Twenty tasks with their seeds: pairs of classes, and the same turned, inverted, or both.

The first five are those of Split-MNIST, or of Split-CIFAR-10 in colour; turned ones are turned by a right angle. A
version of a class is a class of its own, with a name of its own: an answer is right only if it names the version too.
Some versions look alike (a 0 and a turned 0), so that not all of them can be told apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness.datasets import CIFAR10_ORDER, ImageDataset, Sizes, archive, mnist
from engram import Examples


@dataclass(frozen=True)
class GrowthTask:
    """One task: which pair of classes, how its images are changed, and the seed by which they are drawn."""

    pair: int
    """0 is the first and the second class."""
    turned: bool
    """By a right angle, counter-clockwise."""
    inverted: bool
    """Every value v is 255 - v."""
    seed: int

    def classes(self, names: Sequence[str]) -> tuple[str, str]:
        """The names of its two classes, from those of all classes of the data set."""
        how = f"{' turned' if self.turned else ''}{' inverted' if self.inverted else ''}"
        first, second = names[2 * self.pair : 2 * self.pair + 2]
        return f"{first}{how}", f"{second}{how}"

    def name(self, names: Sequence[str]) -> str:
        """Its name, from the names of all classes of the data set."""
        return " and ".join(self.classes(names))


GROWTH_TASKS = (
    GrowthTask(0, False, False, 101),
    GrowthTask(1, False, False, 102),
    GrowthTask(2, False, False, 103),
    GrowthTask(3, False, False, 104),
    GrowthTask(4, False, False, 105),
    GrowthTask(0, True, False, 106),
    GrowthTask(1, True, False, 107),
    GrowthTask(2, True, False, 108),
    GrowthTask(3, True, False, 109),
    GrowthTask(4, True, False, 110),
    GrowthTask(0, False, True, 111),
    GrowthTask(1, False, True, 112),
    GrowthTask(2, False, True, 113),
    GrowthTask(3, False, True, 114),
    GrowthTask(4, False, True, 115),
    GrowthTask(0, True, True, 116),
    GrowthTask(1, True, True, 117),
    GrowthTask(2, True, True, 118),
    GrowthTask(3, True, True, 119),
    GrowthTask(4, True, True, 120),
)
"""The tasks in the order in which they are learned."""


def digest(tasks: Sequence[GrowthTask] = GROWTH_TASKS) -> str:
    """SHA-256 of the list, as rows of results name it."""
    return hashlib.sha256(json.dumps([asdict(task) for task in tasks]).encode()).hexdigest()


def dataset(folder: Path, colour: bool) -> ImageDataset:
    """CIFAR-10 or MNIST; raises MissingData."""
    return archive(folder / "cifar10.tar.xz", Sizes(), CIFAR10_ORDER) if colour else mnist(folder, Sizes())


def examples(data: ImageDataset, task: GrowthTask, train: int, test: int) -> tuple[Examples, Examples]:
    """Training and test images of a task, half of each class, from the training and the test split."""
    generator = torch.Generator().manual_seed(task.seed)
    names = task.classes(data.classes)
    parts = []
    for (images, labels), count in ((data.train, train), (data.test, test)):
        chosen = []
        for label in (2 * task.pair, 2 * task.pair + 1):
            members = (labels == label).nonzero().flatten()
            chosen.append(members[torch.randperm(len(members), generator=generator)[: count // 2]])
        new = torch.arange(2).repeat_interleave(torch.tensor([len(rows) for rows in chosen]))
        parts.append(Examples(changed(images[torch.cat(chosen)], task), new, names))
    return parts[0], parts[1]


def changed(images: Tensor, task: GrowthTask) -> Tensor:
    """(N, C, H, W) uint8 images as a task shows them."""
    images = images.rot90(1, (2, 3)) if task.turned else images
    images = 255 - images if task.inverted else images
    return images.contiguous()
