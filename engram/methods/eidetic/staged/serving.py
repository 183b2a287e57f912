"""Serving of a staged model: everything that answering needs, prepared once for a version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy
import torch
from torch import Tensor

from engram.config.eidetic import EideticSettings
from engram.errors import UnknownTask
from engram.methods.eidetic.staged.adopted import alone, answers_of, beside
from engram.methods.eidetic.staged.served_task import ServedTask, begun_together
from engram.methods.eidetic.staged.staged_task import StagedTask
from engram.nn.capacity import TaskInfo
from engram.nn.commons import Commons
from engram.nn.commons.base import Look
from engram.nn.network import Network
from engram.recognition.predictions import Observation
from engram.recognition.staged.contest import Contest, joint, opened
from engram.recognition.staged.observation import Labels, StagedObservation
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.stacked_tasks import Flags, StackedTasks
from engram.recognition.staged.stage_one import FirstAnswer, StageOne
from engram.runtime import sent


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
    levels: tuple[float | None, ...]
    """As of `Observation`."""
    vouched: tuple[bool, ...]
    """As of `Observation`."""
    heads_of: tuple[bool, ...]
    """For each task whether it has a network, and so a head."""
    contenders: int | Literal["all"]
    adopted: TaskInfo | None = None
    """A network's own classifier, of whose classes no image was seen; it is none of `tasks`."""
    shown: tuple[TaskInfo, ...] = ()
    """All tasks, the adopted one first, as their labels are shown; nothing where those are their own."""

    @classmethod
    def of(
        cls,
        commons: Commons,
        recogniser: StagedRecogniser,
        tasks: Sequence[StagedTask],
        network: Network,
        settings: EideticSettings,
        shown: tuple[TaskInfo, ...] = (),
    ) -> Self:
        """Prepare a version, of which every engram and profile is read."""
        served, infos = tuple(ServedTask.of(task, network) for task in tasks), recogniser.infos
        named = shown[len(shown) - len(infos) :] if shown else infos
        return cls(
            commons,
            network,
            infos,
            served,
            recogniser.stage_one(commons.outputs),
            Contest.of(recogniser),
            StackedTasks.of(infos, [task.profile for task in served]) if served else None,
            Labels.of(named, settings.labels != "apart"),
            tuple(task.profile.level for task in served),
            tuple(task.profile.vouches for task in served),
            tuple(task.task.known.head is not None for task in served),
            settings.contenders or "all",
            recogniser.adopted,
            shown,
        )

    def look(self, images: Tensor) -> Look:
        """What is shown of images (B, C, H, W) uint8."""
        return self.commons.look(sent(images, self.commons.device))

    def number(self, task: str) -> int:
        """The place of a task; raises UnknownTask."""
        for number, info in enumerate(self.tasks):
            if info.name == task:
                return number
        raise UnknownTask(f"the model has no task {task!r}")

    def single(self, images: Tensor, task: str) -> Observation:
        """Images shown to one task alone; raises UnknownTask."""
        if self.adopted is not None and task == self.adopted.name:
            return alone(self.adopted, self.look(images))
        number, look = self.number(task), self.look(images)
        return self.served[number].observed(look, self.stage_one(look.features).unusual[:, number])

    def contest(self, images: Tensor, contenders: int | Literal["all"] | None) -> Observation:
        """Both stages, and an adopted network beside them."""
        with torch.inference_mode():  # whose tensors go no further than this: they could not be learned from
            look = self.look(images)
        if self.adopted is None:
            return self._staged(images, look, contenders)
        own = Look(look.given, look.features, answers_of(look).clone())
        if not self.tasks:
            return alone(self.adopted, own)
        others = self._staged(images, look, contenders)
        labels = Labels.of(self.shown or (self.adopted, *self.tasks), self.labels.joined)
        return beside(self.adopted, own, others, labels, self.single)

    def _staged(self, images: Tensor, look: Look, contenders: int | Literal["all"] | None) -> StagedObservation:
        most, stacked = contenders or self.contenders, self.stacked
        assert stacked is not None, "a model without a task is asked nothing"
        with torch.inference_mode():
            common, first = look.features, self.stage_one(look.features)
            given_to = first.contenders(None if most == "all" else most)
            contending, p_values, asked = opened(stacked, common, first, given_to)
            chosen, answers = contending.numpy(), {}
            numbers = [number for number in numpy.flatnonzero(chosen.any(0)).tolist() if self.heads_of[number]]
            rows_of = {number: numpy.flatnonzero(chosen[:, number]) for number in numbers}
            begun = begun_together(self.served, look, rows_of)
            for number, rows in rows_of.items():
                read = number in self.decider.detectors
                answers[number] = self.served[number].answer(look, rows, read=read, begun=begun.get(number))
            log_tasks = self.decider.log_tasks(first, contending, answers)
            decided, told = joint(stacked, first, log_tasks, answers)
            accepts = self._accepting(common, first, given_to, asked, p_values, decided)
            nearest = numpy.where(accepts, p_values.numpy(), numpy.float32(0)).max(1)
        deciding = torch.from_numpy(decided.numpy())
        return StagedObservation(
            self.tasks,
            (),
            stacked.temperatures,
            torch.from_numpy(log_tasks.numpy()),
            torch.from_numpy(p_values.numpy()),
            levels=self.levels,
            vouched=self.vouched,
            decided=deciding,
            told=deciding if told is decided else torch.from_numpy(told.numpy()),
            contending=torch.from_numpy(chosen),
            accepted=torch.from_numpy(accepts.any(1)),
            vouching=torch.from_numpy((accepts & stacked.vouched).any(1)),
            nearest=torch.from_numpy(nearest),
            heads_of=self.heads_of,
            labels=self.labels,
            images=images,
            ask=self.single,
        )

    def _accepting(
        self,
        common: Tensor,
        first: FirstAnswer,
        given_to: Tensor,
        asked: Tensor,
        p_values: Tensor,
        decided: Tensor,
    ) -> Flags:
        """(B, T): the tasks that know an image, of those that were asked.

        A task that did not contend may have the most probable class; whether it knows the image is asked here, and
        written into the p-values.
        """
        stacked, found = self.stacked, p_values.numpy()
        assert stacked is not None, "there is a task that answers"
        answering = self.labels.owners(decided).numpy()
        unasked = numpy.zeros_like(asked.numpy())
        rows = numpy.arange(len(found))
        unasked[rows, answering] = numpy.isnan(found[rows, answering])
        stacked.write_p_values(common, first.unusual, unasked, found)
        accepts: Flags = (asked.numpy() | unasked) & stacked.accepts(found, given_to.numpy() | unasked)
        return accepts
