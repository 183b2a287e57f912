"""Stores with models of 1, 5, 20 tasks, learned once and kept in a cache, with images to ask about."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from benchmarks.growth.store import GrowthStore
from benchmarks.growth.tasks import GROWTH_TASKS, digest, examples
from benchmarks.harness.datasets import ImageDataset
from benchmarks.serving.networks import ServedNetwork, labels, learned_from, sized
from testing.servers.redis import RedisServer

OPTIONS: dict[str, Any] = {"epochs": 3, "rounds": 1, "recovery_epochs": 0}
"""Of learning: what is served is as large as any, and need not be as good."""
TRAIN, TEST = 120, 32
"""Images of a task."""
ASKED = 64
"""Images of all tasks that requests bring in turn."""
JPEG_QUALITY = 90


@dataclass(frozen=True)
class ServedStore:
    """A kept store with one model, `benchmarks.growth.store.MODEL`, and images of its tasks."""

    folder: Path
    tasks: int

    @property
    def store(self) -> Path:
        """The folder that a service is given."""
        return self.folder / "store"

    @property
    def images(self) -> Path:
        """Folder of image files."""
        return self.folder / "images"

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of all tasks."""
        return tuple(json.loads((self.folder / "labels.json").read_text(encoding="utf-8")))


def default_cache() -> Path:
    """Where stores are kept if nothing else is said."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engram-benchmarks" / "serving"


def encoded(image: Tensor) -> bytes:
    """One (C, H, W) uint8 image as a JPEG, or as a PNG if it is grey."""
    grey = image.shape[0] == 1
    pixels = image[0].numpy() if grey else np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, **({"format": "PNG"} if grey else {"format": "JPEG", "quality": JPEG_QUALITY}))
    return stream.getvalue()


class StoreCache:
    """Kept stores in a folder, learned when they are first asked for.

    Parameters
    ----------
    data
        Folder with MNIST and CIFAR-10; None for digits that are always there.
    """

    def __init__(self, folder: Path, data: Path | None) -> None:
        self._folder = folder
        self._data = data
        self._datasets: dict[bool, ImageDataset] = {}

    def stored(self, network: ServedNetwork, tasks: int) -> ServedStore:
        """The store of a network after so many tasks; raises MissingData."""
        place = self._folder / self._key(network)
        found = ServedStore(place / str(tasks), tasks)
        if not found.folder.exists():
            self._learn(network, tasks, place)
        return found

    def _key(self, network: ServedNetwork) -> str:
        """What determines the models, by name and hash."""
        parts = [network.definition(network.task_width).stored(), OPTIONS, TRAIN, digest(), self._data is None]
        return f"{network.backbone}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]}"

    def _dataset(self, network: ServedNetwork) -> ImageDataset:
        if network.colour not in self._datasets:
            self._datasets[network.colour] = learned_from(network, self._data)
        return self._datasets[network.colour]

    def _learn(self, network: ServedNetwork, tasks: int, place: Path) -> None:
        """Learn what is missing, beyond the largest kept store of fewer tasks."""
        data = self._dataset(network)
        kept = [int(path.name) for path in place.iterdir() if path.name.isdigit()] if place.exists() else []
        unfinished = place / f"{tasks}.unfinished"
        fewer = max((count for count in kept if count < tasks), default=0)
        if fewer and not unfinished.exists():
            shutil.copytree(place / str(fewer), unfinished)
        unfinished.mkdir(parents=True, exist_ok=True)
        redis = RedisServer()
        try:
            definition = network.definition(network.task_width)
            store = GrowthStore(unfinished, redis.url, definition, OPTIONS, 1, network.backbones)
            tests = []
            for number, task in enumerate(GROWTH_TASKS[:tasks], start=1):
                train, test = (sized(part, network.side) for part in examples(data, task, TRAIN, TEST))
                row = store.learn(task.name(data.classes), train)
                tests.append(test.images)
                if number > fewer:
                    print(f"{network.name}: task {number} learned in {row['seconds']} s", file=sys.stderr, flush=True)
            store.close()
        finally:
            redis.remove()
        _write(unfinished, tests, labels(data, tasks))
        unfinished.rename(place / str(tasks))


def _write(folder: Path, tests: Sequence[Tensor], names: Sequence[str]) -> None:
    """The images that are asked about, of all tasks and both their classes in turn, and the names of the classes."""
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "images").mkdir()
    for number in range(ASKED):
        images = tests[number % len(tests)]
        turn = number // len(tests)
        # One class comes after the other, so they are taken alternately from both ends.
        row = (turn // 2 if turn % 2 == 0 else -1 - turn // 2) % len(images)
        (folder / "images" / f"{number:04}").write_bytes(encoded(images[row]))
    (folder / "labels.json").write_text(json.dumps(list(names)), encoding="utf-8")
