"""The recogniser of a staged model: stage one, detectors, and names and sizes of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.nn.capacity import TaskInfo
from engram.recognition.staged.detectors import Reading, ValueDetector
from engram.recognition.staged.score_space import ScoreSpace
from engram.recognition.staged.stage_one import StageOne, temperature_of


@dataclass(frozen=True)
class KnownTask:
    """What a recogniser knows of a task."""

    info: TaskInfo
    network: bool
    """Whether it has a network of its own."""
    log_temperature: float
    evidence: float
    """How many images that was fitted on."""
    reading: Reading | None = None
    """What its detector reads; None for a task without a network."""

    def to_row(self) -> dict[str, object]:
        """What a header says of it."""
        return {
            "task": self.info.name,
            "classes": list(self.info.classes),
            "units": self.info.units,
            "network": self.network,
            "log_temperature": self.log_temperature,
            "evidence": self.evidence,
            "reads": None if self.reading is None else self.reading.to_row(),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The inverse of `to_row`."""
        info = TaskInfo(str(row["task"]), tuple(map(str, row["classes"])), dict(row["units"]))
        reading = None if row["reads"] is None else Reading.from_row(row["reads"])
        return cls(info, bool(row["network"]), float(row["log_temperature"]), float(row["evidence"]), reading)


@dataclass(frozen=True)
class StagedRecogniser:
    """All that stage one needs, and the detectors; solved anew from exact sums with every task."""

    tasks: tuple[KnownTask, ...]
    space: ScoreSpace
    detectors: Mapping[str, ValueDetector]
    """By the name of their own task, where others have given negatives."""

    @classmethod
    def empty(cls, features: int) -> Self:
        return cls((), ScoreSpace(torch.zeros(features + 1, 0), torch.zeros(0, 0)), {})

    @property
    def infos(self) -> tuple[TaskInfo, ...]:
        """Names, classes and units of all tasks."""
        return tuple(task.info for task in self.tasks)

    def stage_one(self) -> StageOne:
        """The first stage over all tasks."""
        evidence = [(task.log_temperature, task.evidence) for task in self.tasks]
        return StageOne(self.space, tuple(len(info.classes) for info in self.infos), temperature_of(evidence))

    def dump(self) -> bytes:
        """The recogniser as bytes."""
        rows = [task.to_row() for task in self.tasks]
        detectors = {name: detector.to_row() for name, detector in self.detectors.items()}
        tensors = {"weights": self.space.weights, "means": self.space.means}
        tensors |= {f"detector.{n}": self.detectors[name].weights for n, name in enumerate(detectors)}
        ordered: Sequence[object] = list(detectors.items())
        return pack("staged recogniser", {"tasks": rows, "detectors": ordered}, tensors)

    @classmethod
    def load(cls, data: bytes) -> StagedRecogniser:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("staged recogniser", data)
        try:
            rows, ordered = cast(list[dict[str, Any]], about["tasks"]), cast(list[Any], about["detectors"])
            detectors = {
                str(name): ValueDetector(
                    tensors[f"detector.{n}"], tuple(row["tasks"]), tuple(row["sizes"]), tuple(row["apart"])
                )
                for n, (name, row) in enumerate(ordered)
            }
            space = ScoreSpace(tensors["weights"], tensors["means"])
            return cls(tuple(map(KnownTask.from_row, rows)), space, detectors)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            raise DamagedSnapshot(f"the recogniser lacks {error}") from error
