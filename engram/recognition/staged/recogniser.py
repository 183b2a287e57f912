"""The recogniser of a staged model: stage one, detectors, and names and sizes of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

import torch

from engram.checkpointing.tensors import FORMAT, LATER, LATEST, NEWEST, pack, unpack
from engram.errors import DamagedSnapshot
from engram.nn.capacity import TaskInfo
from engram.nn.commons.outputs import Outputs
from engram.recognition.staged.detectors import Reading, ValueDetector
from engram.recognition.staged.joined.joined_solution import Mixture, chosen_mixture, chosen_way, mixtures
from engram.recognition.staged.joined.output_deviations import OutputDeviations
from engram.recognition.staged.joined.relative_distance import RelativeDistance
from engram.recognition.staged.score_space import ScoreSpace
from engram.recognition.staged.stage_one import StageOne, temperature_of

Head = Literal["blocks", "linear", "network"]
"""Blocks of its own, a linear map of the commons' features alone, or a network's own classifier."""


_RELATIVE = ("centre", "background", "offsets", "scales", "expected", "freedom")
_OUTPUTS = ("centres", "scales")


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
    head: Head | None = None
    """What its logits come from; None for a task of one class, which has none."""
    mixture: Mixture | None = None
    """Where several commons stand side by side: what its images say of how to share the weight among them."""

    def to_row(self) -> dict[str, object]:
        """What a header says of it."""
        later: dict[str, object] = {}
        if self.head not in (None, "blocks"):
            later["head"] = self.head
        if self.mixture is not None:
            later["mixture"] = self.mixture
        return {
            **later,
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
        network = bool(row["network"])
        head, mixture = row.get("head", "blocks" if network else None), row.get("mixture")
        if head not in (None, "blocks", "linear", "network") or (head == "blocks") != network:
            raise ValueError("a head of a kind that is not known")
        pairs = None if mixture is None else tuple((float(log), float(loss)) for log, loss in mixture)
        return cls(info, network, float(row["log_temperature"]), float(row["evidence"]), reading, head, pairs)


def weights_of(tasks: Sequence[KnownTask], count: int) -> tuple[float, ...]:
    """The weight of each of so many commons, as all tasks' images together have it."""
    evidence = [(task.mixture, task.evidence) for task in tasks if task.mixture is not None]
    return mixtures(count)[chosen_mixture(count, evidence)]


@dataclass(frozen=True)
class StagedRecogniser:
    """All that stage one needs, and the detectors; solved anew from exact sums with every task."""

    tasks: tuple[KnownTask, ...]
    space: ScoreSpace
    detectors: Mapping[str, ValueDetector]
    """By the name of their own task, where others have given negatives."""
    adopted: TaskInfo | None = None
    """A task that is a network's own classifier, of whose classes no image was seen: it is none of `tasks`."""

    @classmethod
    def empty(cls, features: int) -> Self:
        return cls((), ScoreSpace(torch.zeros(features + 1, 0), torch.zeros(0, 0)), {})

    @property
    def infos(self) -> tuple[TaskInfo, ...]:
        """Names, classes and units of all tasks that were learned."""
        return tuple(task.info for task in self.tasks)

    def stage_one(self, outputs: Callable[[], Outputs | None] | None = None) -> StageOne:
        """The first stage over all tasks; `outputs` as `StageOne` has them."""
        evidence = [(task.log_temperature, task.evidence) for task in self.tasks]
        several = next((len(task.mixture) for task in self.tasks if task.mixture is not None), None)
        if several is not None:
            given = [(task.mixture, task.evidence) for task in self.tasks if task.mixture is not None]
            chosen = chosen_way(several, given)
            evidence = [(mixture[chosen][0], images) for mixture, images in given]
        return StageOne(self.space, tuple(len(info.classes) for info in self.infos), temperature_of(evidence), outputs)

    def dump(self) -> bytes:
        """The recogniser as bytes."""
        rows = [task.to_row() for task in self.tasks]
        detectors = {name: detector.to_row() for name, detector in self.detectors.items()}
        tensors = {"weights": self.space.weights, "means": self.space.means}
        tensors |= {f"detector.{n}": self.detectors[name].weights for n, name in enumerate(detectors)}
        ordered: Sequence[object] = list(detectors.items())
        about: dict[str, object] = {"tasks": rows, "detectors": ordered}
        version = FORMAT
        if self.adopted is not None:
            about["adopted"], version = {"task": self.adopted.name, "classes": list(self.adopted.classes)}, LATER
        if (relative := self.space.relative) is not None:
            tensors |= {f"relative.{name}": getattr(relative, name) for name in _RELATIVE}
            version = LATEST
            if relative.outputs is not None:
                tensors |= {f"outputs.{name}": getattr(relative.outputs, name) for name in _OUTPUTS}
                version = NEWEST
        return pack("staged recogniser", about, tensors, version)

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
            parts = [tensors[f"relative.{name}"] for name in _RELATIVE if "relative.centre" in tensors]
            beside = [tensors[f"outputs.{name}"] for name in _OUTPUTS if "outputs.centres" in tensors]
            outputs = OutputDeviations(*beside) if beside else None
            relative = RelativeDistance(*parts, outputs=outputs) if parts else None
            space = ScoreSpace(tensors["weights"], tensors["means"], relative)
            own = cast(Mapping[str, Any] | None, about.get("adopted"))
            adopted = None if own is None else TaskInfo(str(own["task"]), tuple(map(str, own["classes"])), {})
            return cls(tuple(map(KnownTask.from_row, rows)), space, detectors, adopted)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            raise DamagedSnapshot(f"the recogniser lacks {error}") from error
