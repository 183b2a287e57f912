"""Benchmark learner over the Python interface, and the predictions of all benchmark learners."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness.remembered_commons import remembering
from engram import Definition, Examples, LearnOptions, Memory
from engram.checkpointing.progress import Progress
from engram.nn.pretrained.backbone import Backbone

IMAGES_PER_PASS = 256


class PythonMemory:
    """Learner around a memory, which is new or loaded from a folder.

    Parameters
    ----------
    backbones
        Networks that the definition names.
    seen
        Folder in which is kept what these see of images; None where each looks at every image each time.
    """

    incremental = True

    def __init__(
        self,
        definition: Definition,
        options: LearnOptions,
        device: str,
        folder: Path | None = None,
        backbones: Mapping[str, Backbone] | None = None,
        seen: Path | None = None,
    ) -> None:
        memory = Memory.create(definition, backbones) if folder is None else Memory.load(folder)
        self.memory = (memory if seen is None else remembering(memory, seen)).to(device)
        self._options = options

    def learn(self, task: str, examples: Examples, progress: Callable[[Progress], None]) -> dict[str, object]:
        return self.memory.learn(task, examples, self._options, progress=progress).to_dict()

    def predict(self, examples: Examples, task: str | None) -> list[BenchmarkPrediction]:
        parts = torch.split(examples.images, IMAGES_PER_PASS)
        answers = [answer for part in parts for answer in self.memory.predict(part, task)]
        return [BenchmarkPrediction(a.task, a.label, a.probability, a.novelty, a.known, a.passes) for a in answers]

    def free(self) -> float | None:
        layers = self.memory.capacity()
        return sum(layer.free for layer in layers) / sum(layer.units for layer in layers) if layers else None

    def stored(self) -> dict[str, int]:
        """Bytes by kind of file, of which `engram-0001.safetensors` has the kind `engram`; and of all files."""
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
        """Do nothing."""


@dataclass(frozen=True)
class BenchmarkPrediction:
    """Prediction of a benchmark learner for one image."""

    task: str | None
    """None if the label does not determine it."""
    label: str
    probability: float
    novelty: float | None = None
    """Novelty of the image in relation to the learned tasks; None if not reported."""
    known: bool | None = None
    """Whether some task accepted the image as its own."""
    passes: int = 1
    """Number of forward passes."""
