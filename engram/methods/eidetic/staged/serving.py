"""Serving of a staged model: everything that answering needs, prepared once for a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from engram.config.eidetic import EideticSettings
from engram.errors import UnknownTask
from engram.methods.eidetic.staged.tasks import StagedTask
from engram.nn.capacity import TaskInfo
from engram.nn.commons import Commons
from engram.nn.network import Engram, Network, pixels
from engram.nn.shapes import RowwiseLinear
from engram.recognition.predictions import Observation
from engram.recognition.staged.contest import Contest, TaskAnswer
from engram.recognition.staged.observation import Labels, StagedObservation
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.stage_one import FirstAnswer, StageOne


@dataclass(frozen=True)
class Serving:
    """A version that answers; nothing of it changes."""

    commons: Commons
    network: Network
    tasks: tuple[TaskInfo, ...]
    engrams: tuple[Engram | None, ...]
    commons_heads: tuple[RowwiseLinear | None, ...]
    """For each task what its head reads of the commons."""
    profiles: tuple[StagedProfile, ...]
    stage_one: StageOne
    decider: Contest
    labels: Labels
    contenders: int | Literal["all"]

    @classmethod
    def of(
        cls,
        commons: Commons,
        recogniser: StagedRecogniser,
        tasks: Sequence[StagedTask],
        network: Network,
        settings: EideticSettings,
    ) -> Self:
        """Prepare a version, of which every engram and profile is read."""
        engrams, profiles = tuple(task.engram for task in tasks), tuple(task.profile for task in tasks)
        infos = recogniser.infos
        heads = [None if engram is None or engram.common is None else engram.common for engram in engrams]
        return cls(
            commons,
            network,
            infos,
            engrams,
            tuple(None if head is None else RowwiseLinear(head.weight, head.bias) for head in heads),
            profiles,
            recogniser.stage_one(),
            Contest.of(recogniser, profiles),
            Labels.of(infos, settings.labels != "apart"),
            settings.contenders or "all",
        )

    def first(self, images: Tensor) -> tuple[Tensor, Tensor, FirstAnswer]:
        """Pixels (B, C, H, W), features (B, F) on the CPU, and stage one, of images (B, C, H, W) uint8."""
        given = pixels(images.to(self.commons.device))
        common = self.commons(given).cpu()
        return given, common, self.stage_one(common)

    def number(self, task: str) -> int:
        """The place of a task; raises UnknownTask."""
        for number, info in enumerate(self.tasks):
            if info.name == task:
                return number
        raise UnknownTask(f"the model has no task {task!r}")

    def answer(self, number: int, given: Tensor, common: Tensor, rows: Tensor | None = None) -> TaskAnswer:
        """What a task's network says of pixels (n, C, H, W) with features (n, F), or of some rows of these."""
        rows = torch.arange(len(given)) if rows is None else rows
        engram, profile = self.engrams[number], self.profiles[number]
        if engram is None or profile.reading is None:
            return TaskAnswer(rows, torch.zeros(len(rows), len(self.tasks[number].classes)), torch.zeros(len(rows), 0))
        whole = len(rows) == len(given)
        features, logits = self.network.answer(engram.task, given if whole else given[rows])
        head = self.commons_heads[number]
        logits = logits.cpu() if head is None else logits.cpu() + head(common if whole else common[rows])
        return TaskAnswer(rows, logits, profile.reading(features.cpu()))

    def logits(self, task: str, images: Tensor) -> Tensor:
        """(B, classes) of one task, for images (B, C, H, W) uint8."""
        given = pixels(images.to(self.commons.device))
        return self.answer(self.number(task), given, self.commons(given).cpu()).logits

    def single(self, images: Tensor, task: str) -> Observation:
        """Images shown to one task alone; raises UnknownTask."""
        number = self.number(task)
        given, common, first = self.first(images)
        answer, profile = self.answer(number, given, common), self.profiles[number]
        return Observation(
            (self.tasks[number],),
            (answer.logits,),
            profile.temperature[None],
            torch.zeros(len(images), 1),
            profile.p_values(common, first.unusual[:, number])[:, None],
            levels=(profile.level,),
            vouched=(profile.vouches,),
            balances=None if profile.balance is None else (profile.balance,),
            ran=(task,),
        )

    def contest(self, images: Tensor, contenders: int | Literal["all"] | None) -> StagedObservation:
        """Both stages."""
        most = contenders or self.contenders
        given, common, first = self.first(images)
        contending = first.contenders(None if most == "all" else most)
        contending, p_values = self.decider.opened(common, first, contending)
        answers = {}
        for number in contending.any(0).nonzero().flatten().tolist():
            if self.engrams[number] is not None:
                answers[number] = self.answer(number, given, common, contending[:, number].nonzero().flatten())
        log_tasks = self.decider.log_tasks(first, contending, answers)
        decided, told = self.decider.joint(first, log_tasks, answers)
        return StagedObservation(
            self.tasks,
            (),
            torch.stack([profile.temperature for profile in self.profiles]),
            log_tasks,
            p_values,
            levels=tuple(profile.level for profile in self.profiles),
            vouched=tuple(profile.vouches for profile in self.profiles),
            decided=decided,
            told=told,
            contending=contending,
            heads_of=tuple(engram is not None for engram in self.engrams),
            labels=self.labels,
            images=images,
            ask=self.single,
        )
