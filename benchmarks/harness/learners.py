"""The learner used directly, as it is measured."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engram import Definition, Examples, LearnOptions, Memory
from engram.checkpointing.progress import Progress

IMAGES_PER_PASS = 256


class PythonMemory:
    """A memory, new or from a folder that it was saved in."""

    incremental = True

    def __init__(self, definition: Definition, options: LearnOptions, device: str, folder: Path | None = None) -> None:
        self.memory = (Memory.create(definition) if folder is None else Memory.load(folder)).to(device)
        self._options = options

    def learn(self, task: str, examples: Examples, progress: Callable[[Progress], None]) -> dict[str, object]:
        return self.memory.learn(task, examples, self._options, progress=progress).to_dict()

    def predict(self, examples: Examples, task: str | None) -> list[BenchmarkPrediction]:
        parts = torch.split(examples.images, IMAGES_PER_PASS)
        answers = [answer for part in parts for answer in self.memory.predict(part, task)]
        return [BenchmarkPrediction(a.task, a.label, a.probability, a.novelty, a.known, a.passes) for a in answers]

    def free(self) -> float:
        layers = self.memory.capacity()
        return sum(layer.free for layer in layers) / sum(layer.units for layer in layers)

    def stored(self) -> dict[str, int]:
        """Bytes of each kind of file, as `engram-0001.safetensors` is one of the kind `engram`; and of all."""
        kinds: dict[str, int] = {}
        with tempfile.TemporaryDirectory(prefix="engram-benchmark-") as folder:
            self.memory.save(folder)
            files = [path for path in Path(folder).rglob("*") if path.is_file()]
            for path in files:
                kind = path.stem.partition("-")[0]
                kinds[kind] = kinds.get(kind, 0) + path.stat().st_size
        return {**kinds, "all": sum(kinds.values())}

    def save(self, folder: Path) -> None:
        self.memory.save(folder)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class BenchmarkPrediction:
    """What a memory answers for one image."""

    task: str | None
    """None where the label does not tell."""
    label: str
    probability: float
    novelty: float | None = None
    """How unusual the image looks to what was learned; None where nothing is said about it."""
    known: bool | None = None
    """Whether the image was accepted as one of some task's own."""
    passes: int = 1
    """Forward passes that the answer took."""
