"""One task that answers, with nothing read of the tasks that it does not read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.methods.eidetic.staged.staged_task import StagedTask
from engram.nn.capacity import TaskInfo
from engram.nn.network import Engram, Network
from engram.nn.shapes import RowwiseLinear
from engram.recognition.predictions import Observation
from engram.recognition.staged.contest import TaskAnswer
from engram.recognition.staged.profile import StagedProfile


@dataclass(frozen=True)
class ServedTask:
    """A task's network, with all that it reads, and its profile; nothing of it changes."""

    task: StagedTask
    network: Network
    engram: Engram | None
    head: RowwiseLinear | None
    """What its head reads of the commons."""

    @classmethod
    def of(cls, task: StagedTask, network: Network) -> Self:
        """A task in a network that has its engram and those that it reads."""
        engram = task.engram
        common = None if engram is None else engram.common
        head = None if common is None else RowwiseLinear(common.weight, common.bias)
        return cls(task, network, engram, head)

    @property
    def info(self) -> TaskInfo:
        """Its name, classes and units."""
        return self.task.known.info

    @property
    def profile(self) -> StagedProfile:
        """Read when it is first asked for, which logits alone do not take."""
        return self.task.profile

    def logits(self, given: Tensor, common: Tensor) -> Tensor:
        """(n, classes), of pixels (n, C, H, W) with features (n, F)."""
        return self._values(given, common)[1]

    def _values(self, given: Tensor, common: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, F_t) and logits (n, classes)."""
        if self.engram is None:
            return torch.zeros(len(given), 0), torch.zeros(len(given), len(self.info.classes))
        features, logits = self.network.answer(self.info.name, given)
        return features.cpu(), logits.cpu() if self.head is None else logits.cpu() + self.head(common)

    def answer(self, given: Tensor, common: Tensor, rows: Tensor | None = None, *, read: bool = False) -> TaskAnswer:
        """What the network says of pixels (n, C, H, W) with features (n, F), or of some rows of these.

        Parameters
        ----------
        read
            Whether there is a detector to read it.
        """
        rows = torch.arange(len(given)) if rows is None else rows
        whole = len(rows) == len(given)
        features, logits = self._values(given if whole else given[rows], common if whole else common[rows])
        reading = self.task.known.reading
        return TaskAnswer(rows, logits, reading(features) if read and reading is not None else features[:, :0])

    def observed(self, given: Tensor, common: Tensor, unusual: Tensor) -> Observation:
        """Pixels (B, C, H, W) with features (B, F), of which stage one says how unusual (B,) they are to the task."""
        answer, profile = self.answer(given, common), self.profile
        return Observation(
            (self.info,),
            (answer.logits,),
            profile.temperature[None],
            torch.zeros(len(given), 1),
            profile.p_values(common, unusual)[:, None],
            levels=(profile.level,),
            vouched=(profile.vouches,),
            balances=None if profile.balance is None else (profile.balance,),
            ran=() if self.engram is None else (self.info.name,),
            evidence="ridge" if self.engram is None else "head",
        )
