"""Serving of a staged model: everything that answering needs, prepared once for a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from engram.config.eidetic import EideticSettings
from engram.errors import UnknownTask
from engram.methods.eidetic.staged.served_task import ServedTask
from engram.methods.eidetic.staged.staged_task import StagedTask
from engram.nn.capacity import TaskInfo
from engram.nn.commons import Commons
from engram.nn.network import Network, pixels
from engram.recognition.predictions import Observation
from engram.recognition.staged.contest import Contest, joint, opened
from engram.recognition.staged.observation import Labels, StagedObservation
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.stacked_tasks import StackedTasks
from engram.recognition.staged.stage_one import FirstAnswer, StageOne


@dataclass(frozen=True)
class Serving:
    """A version that answers; nothing of it changes."""

    commons: Commons
    network: Network
    tasks: tuple[TaskInfo, ...]
    served: tuple[ServedTask, ...]
    stage_one: StageOne
    decider: Contest
    stacked: StackedTasks | None
    """None without a task."""
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
        served, infos = tuple(ServedTask.of(task, network) for task in tasks), recogniser.infos
        return cls(
            commons,
            network,
            infos,
            served,
            recogniser.stage_one(),
            Contest.of(recogniser),
            StackedTasks.of(infos, [task.profile for task in served]) if served else None,
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

    def single(self, images: Tensor, task: str) -> Observation:
        """Images shown to one task alone; raises UnknownTask."""
        number = self.number(task)
        given, common, first = self.first(images)
        return self.served[number].observed(given, common, first.unusual[:, number])

    def contest(self, images: Tensor, contenders: int | Literal["all"] | None) -> StagedObservation:
        """Both stages."""
        most = contenders or self.contenders
        given, common, first = self.first(images)
        contending = given_to = first.contenders(None if most == "all" else most)
        stacked = self.stacked
        assert stacked is not None, "a model without a task is asked nothing"
        contending, p_values, asked = opened(stacked, common, first, contending)
        answers = {}
        for number in contending.any(0).nonzero().flatten().tolist():
            if self.served[number].engram is not None:
                rows = contending[:, number].nonzero().flatten()
                answers[number] = self.served[number].answer(given, common, rows, read=number in self.decider.detectors)
        log_tasks = self.decider.log_tasks(first, contending, answers)
        decided, told = joint(stacked, first, log_tasks, answers)
        # A task that did not contend may have the most probable class; whether it knows the image is asked then.
        answering = torch.zeros_like(contending).scatter(1, self.labels.owners(decided)[:, None], True)
        unasked = answering & p_values.isnan()
        stacked.write_p_values(common, first.unusual, unasked, p_values)
        accepts = (asked | unasked) & stacked.accepts(p_values, given_to | unasked)
        return StagedObservation(
            self.tasks,
            (),
            stacked.temperatures,
            log_tasks,
            p_values,
            levels=tuple(task.profile.level for task in self.served),
            vouched=tuple(task.profile.vouches for task in self.served),
            decided=decided,
            told=told,
            contending=contending,
            accepted=accepts.any(1),
            vouching=(accepts & stacked.vouched).any(1),
            nearest=p_values.masked_fill(~accepts, 0).amax(1),
            heads_of=tuple(task.engram is not None for task in self.served),
            labels=self.labels,
            images=images,
            ask=self.single,
        )
