"""One task that answers, with nothing read of the tasks that it does not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy
import torch
from torch import Tensor

from engram.methods.eidetic.staged.adopted import answers_of
from engram.methods.eidetic.staged.staged_task import StagedTask
from engram.nn.capacity import TaskInfo
from engram.nn.commons.base import Look
from engram.nn.network import Engram, Network
from engram.nn.shapes import Rows, RowwiseLinear
from engram.recognition.predictions import Observation
from engram.recognition.staged.contest import TaskAnswer
from engram.recognition.staged.profile import StagedProfile
from engram.runtime import fetched

Begun = tuple[Tensor, Tensor]
"""Features (n, F_t) and logits (n, classes), less what the head reads of the commons."""


@dataclass(frozen=True)
class ServedTask:
    """A task's network, with all that it reads, and its profile; nothing of it changes."""

    task: StagedTask
    network: Network
    engram: Engram | None
    head: RowwiseLinear | None
    """What its head reads of the commons; of a linear head all that there is."""

    @classmethod
    def of(cls, task: StagedTask, network: Network) -> Self:
        """A task in a network that has its engram and those that it reads."""
        engram = task.engram
        common = task.linear if engram is None else engram.common
        # The features of the commons are on the processor, wherever the engram is.
        head = None if common is None else RowwiseLinear(common.weight.cpu(), common.bias.cpu())
        return cls(task, network, engram, head)

    @property
    def info(self) -> TaskInfo:
        """Its name, classes and units."""
        return self.task.known.info

    @property
    def profile(self) -> StagedProfile:
        """Read when it is first asked for, which logits alone do not take."""
        return self.task.profile

    def logits(self, look: Look) -> Tensor:
        """(n, classes), of what is shown of n images."""
        return self._values(look)[1]

    def begun(self, look: Look, rows: Rows) -> Begun | None:
        """What its network gives on a GPU, which may be at it for a while; None where it has no network."""
        every = len(rows) == len(look.features)
        return None if self.engram is None else self.network.answer(self.info.name, look.given, None if every else rows)

    def _values(self, look: Look, rows: Rows | None = None, begun: Begun | None = None) -> tuple[Tensor, Tensor]:
        """Features (n, F_t) and logits (n, classes), by what was begun and fetched, if it was."""
        given, common = look.given, look.features
        if self.task.known.head == "network":
            answers = answers_of(look)
            own = answers if rows is None else answers.index_select(0, torch.from_numpy(rows))
            return torch.zeros(len(own), 0), own
        if self.engram is None:
            count = len(common) if rows is None else len(rows)
            features, logits = torch.zeros(count, 0), torch.zeros(count, len(self.info.classes))
        elif begun is not None:
            features, logits = begun
        else:
            features, logits = self.network.answer(self.info.name, given, rows)
            if given.device.type != "cpu":
                features, logits = fetched(features, logits)
        if self.head is None:
            return features, logits
        own = common if rows is None else common.index_select(0, torch.from_numpy(rows))
        return features, self.head(own) if self.engram is None else logits + self.head(own)

    def answer(
        self, look: Look, rows: Rows | None = None, *, read: bool = False, begun: Begun | None = None
    ) -> TaskAnswer:
        """What the network says of what is shown of B images, or of some rows of these, ascending.

        Parameters
        ----------
        read
            Whether there is a detector to read it.
        begun
            What `begun` gave, on the processor, where it was asked.
        """
        count = len(look.features)
        rows = numpy.arange(count) if rows is None else rows
        features, logits = self._values(look, None if len(rows) == count else rows, begun)
        reading = self.task.known.reading
        values = reading(features) if read and reading is not None else features[:, :0]
        return TaskAnswer(torch.from_numpy(rows), logits, values)

    def observed(self, look: Look, unusual: Tensor) -> Observation:
        """What is shown of B images, of which stage one says how unusual (B,) they are to the task."""
        answer, profile = self.answer(look), self.profile
        return Observation(
            (self.info,),
            (answer.logits,),
            profile.temperature[None],
            torch.zeros(len(answer.logits), 1),
            profile.p_values(look.features, unusual)[:, None],
            levels=(profile.level,),
            vouched=(profile.vouches,),
            balances=None if profile.balance is None else (profile.balance,),
            ran=() if self.task.known.head is None else (self.info.name,),
            evidence="ridge" if self.task.known.head is None else "head",
        )


def begun_together(served: Sequence[ServedTask], look: Look, asked: Mapping[int, Rows]) -> dict[int, Begun]:
    """Of the tasks that are asked about some rows what their networks give, where that is sooner done for many at once.

    On a GPU all are begun before the first is waited for, and fetched by one copy.
    """
    if look.given.device.type == "cpu":
        numbers = {served[number].info.name: number for number in asked if served[number].engram is not None}
        if not numbers:
            return {}
        network = served[next(iter(numbers.values()))].network  # which is that of them all
        answers = network.answers({name: asked[number] for name, number in numbers.items()}, look.given)
        return {numbers[name]: answer for name, answer in answers.items()}
    there = {number: found for number, rows in asked.items() if (found := served[number].begun(look, rows)) is not None}
    if not there:
        return {}
    values = iter(fetched(*(value for pair in there.values() for value in pair)))
    return dict(zip(there, zip(values, values, strict=True), strict=True))
