"""Lazy method, plain as can be: a task is the mean image of each class, read when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from engram.checkpointing.pieces import Piece, bytes_of, hash_of
from engram.checkpointing.tensors import pack, unpack
from engram.config.definition import Definition
from engram.context import LearnContext
from engram.data.examples import Examples, split
from engram.errors import UnknownTask
from engram.explain.explainer import Heatmap
from engram.methods.base import Method, StoredModel
from engram.nn.capacity import LayerCapacity, TaskInfo
from engram.recognition.predictions import Observation
from engram.training.report import LearningReport

REGISTERED = (__name__, "NearestMean")
"""What stands for the class in the registry of methods."""


class NearestMean(Method):
    """Nearest class mean; learning a task reads the task before it, and adds to the totals of all tasks' sums."""

    lazy: ClassVar[bool] = True
    least_classes: ClassVar[int] = 1
    shapes: ClassVar[tuple[int, ...]] = (1, 4)

    def __init__(
        self,
        definition: Definition,
        budget: Mapping[str, int],
        tasks: tuple[TaskInfo, ...] = (),
        engrams: tuple[bytes | Piece, ...] = (),
        kept: tuple[bytes | Piece, ...] | None = (),
        means: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__(definition, budget)
        self._tasks = tasks
        self._engrams = engrams
        self._kept = kept
        self._means = {} if means is None else means

    @classmethod
    def create(cls, definition: Definition, weights: Sequence[bytes | Piece] = ()) -> Self:
        return cls(definition, {"means": 64})

    @classmethod
    def restore(
        cls,
        definition: Definition,
        engrams: Sequence[bytes | Piece],
        recogniser: bytes,
        kept: Sequence[bytes | Piece] | None,
        budget: Mapping[str, int],
        reuse: Self | None = None,
    ) -> Self:
        header, _ = unpack("names", recogniser)
        rows = cast("list[tuple[str, list[str]]]", header["tasks"])
        tasks = tuple(TaskInfo(name, tuple(classes), {"means": len(classes)}) for name, classes in rows)
        built = {} if reuse is None else {sha: reuse._means.get(name) for sha, name in reuse._names().items()}
        known = {info.name: built.get(hash_of(piece)) for info, piece in zip(tasks, engrams, strict=True)}
        means = {name: one for name, one in known.items() if one is not None}
        return cls(definition, budget, tasks, tuple(engrams), None if kept is None else tuple(kept), means)

    def _names(self) -> dict[str, str]:
        """The tasks, by the hashes of their engrams."""
        return {hash_of(piece): info.name for piece, info in zip(self._engrams, self._tasks, strict=True)}

    def dump(self) -> StoredModel:
        assert self._kept is not None, "it was restored to learn"
        rows = [(info.name, list(info.classes)) for info in self._tasks]
        return StoredModel(self._engrams, pack("names", {"tasks": rows}, {}), self._kept)

    @property
    def tasks(self) -> tuple[TaskInfo, ...]:
        return self._tasks

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(self._means)

    @property
    def exact(self) -> bool:
        return True

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device | str) -> None: ...

    def learn(self, task: str, examples: Examples, context: LearnContext) -> LearningReport:
        assert self._kept is not None, "it was restored to learn"
        train, held_out = split(examples, context.options.held_out, context.seed, needed=self.needed_classes)
        if self._tasks:
            self._mean(self._tasks[-1].name)
        means = torch.stack([_flat(train.images[train.labels == label]).mean(0) for label in range(len(train.classes))])
        seen = torch.einsum("np,nq->pq", *[_flat(train.images).double()] * 2)  # (pixels, pixels)
        totals = unpack("totals", bytes_of(self._kept[0]))[1]["sum"] + seen if self._kept else seen
        own = (pack("totals", {}, {"sum": totals}), *self._kept[1:], pack("sums", {"task": task}, {"sum": seen}))
        self._engrams = (*self._engrams, pack("means", {"task": task}, {"means": means}))
        self._kept = own
        self._tasks = (*self._tasks, TaskInfo(task, train.classes, {"means": len(train.classes)}))
        self._means = {**self._means, task: means}
        report = LearningReport.begun(task, train, held_out, context.options, context.reporter.journal)
        report.judge(self._scores(task, held_out.images).argmax(1) == held_out.labels, held_out)
        return report

    def observe(self, images: Tensor) -> Observation:
        return self._observed(images, [info.name for info in self._tasks])  # all contend

    def observe_for(self, images: Tensor, task: str | None, contenders: Any) -> Observation:
        if task is None:
            return self.observe(images)
        if all(info.name != task for info in self._tasks):
            raise UnknownTask(f"the model has no task {task!r}")
        return self._observed(images, [task])

    def _observed(self, images: Tensor, names: Sequence[str]) -> Observation:
        infos = tuple(info for info in self._tasks if info.name in names)
        heads = tuple(self._scores(info.name, images) for info in infos)
        log_tasks = torch.log_softmax(torch.stack([head.amax(1) for head in heads], 1), 1)
        return Observation(infos, heads, torch.ones(len(infos)), log_tasks, torch.ones(len(images), len(infos)))

    def _scores(self, task: str, images: Tensor) -> Tensor:
        means = self._mean(task)
        return -torch.stack([(means - one).square().mean(1) for one in _flat(images)])  # (B, classes)

    def _mean(self, task: str) -> Tensor:
        if task not in self._means:
            at = [info.name for info in self._tasks].index(task)
            self._means[task] = unpack("means", bytes_of(self._engrams[at]))[1]["means"]
        return self._means[task]

    def explain(self, image: Tensor, owner: int, target: int, composite: str) -> Heatmap:
        raise NotImplementedError

    def capacity(self) -> list[LayerCapacity]:
        owned = {info.name: info.units["means"] for info in self._tasks}
        return [LayerCapacity("means", self.budget["means"], owned, self.budget["means"] - sum(owned.values()))]

    def raise_budget(self, budget: float | Mapping[str, int]) -> None:
        raise NotImplementedError


def _flat(images: Tensor) -> Tensor:
    """(B, pixels) float32."""
    return images.flatten(1).float() / 255
