"""Stage two of an answer: the tasks that contend for an image are run, and decide among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy
import torch
from torch import Tensor

from engram.nn.capacity import TaskInfo
from engram.recognition.staged.agreement import weights
from engram.recognition.staged.detectors import ValueDetector, separations
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.score_space import squared
from engram.recognition.staged.stacked_scores import Floats
from engram.recognition.staged.stacked_tasks import StackedTasks
from engram.recognition.staged.stage_one import FirstAnswer

NEAREST = 3
"""Tasks nearest to an image that are asked whether they know it, before it is called unknown."""

SHARPNESS = 0.5
"""Multiplies detectors' log-odds: real values have heavier tails than the Gaussians that stand for them."""

MOST_ODDS = 16.0
"""Log-odds of a detector at most, either way."""


@dataclass(frozen=True)
class TaskAnswer:
    """What one task's network says of the rows of a batch that it was run for."""

    rows: Tensor
    """(n,) int64: which images."""
    logits: Tensor
    """(n, classes)."""
    values: Tensor
    """(n, P): what its detector reads."""


@dataclass(frozen=True)
class WeighedDetector:
    """A detector, and what its log-odds count for beside those of stage one."""

    detector: ValueDetector
    others: Tensor
    """(others,) int64: the places of the tasks that have given it negatives."""
    weights: Tensor
    """(others, 2): of stage one's log-odds, and of the detector's."""

    def change(self, values: Tensor, first: Floats) -> Floats:
        """(B, others): what is to be added to stage one's log-odds (B, others), for what the detector reads (B, P)."""
        odds, weights = SHARPNESS * self.detector.log_odds(values).numpy(), self.weights.numpy()
        found: Floats = (weights[:, 0] - 1) * first + weights[:, 1] * odds.clip(-MOST_ODDS, MOST_ODDS)
        return found


@dataclass(frozen=True)
class Contest:
    """The tasks that are run for each image of a batch, and what they make of it.

    Parameters
    ----------
    tasks
        All of them, in order.
    detectors
        By the place of their own task; those that add nothing to stage one are left out.
    """

    tasks: Sequence[TaskInfo]
    detectors: Mapping[int, WeighedDetector]

    @classmethod
    def of(cls, recogniser: StagedRecogniser) -> Self:
        """Of a recogniser, its detectors weighed against its stage one."""
        infos, means = recogniser.infos, recogniser.space.means
        sizes, sharp = [len(info.classes) for info in infos], recogniser.stage_one().temperature ** 0.5
        square = squared(means, means)
        places = {info.name: number for number, info in enumerate(infos)}
        weighed = {}
        for name, detector in recogniser.detectors.items():
            if len(detector.tasks) > 1:
                apart = separations(square, sizes, places[name])
                others = [places[other] for other in detector.tasks[1:]]
                pairs = [
                    weights(apart[other] * sharp, own * SHARPNESS**0.5)
                    for other, own in zip(others, detector.apart, strict=True)
                ]
                if any(pair != (1.0, 0.0) for pair in pairs):
                    weighed[places[name]] = WeighedDetector(detector, torch.tensor(others), torch.tensor(pairs))
        return cls(infos, weighed)

    def log_tasks(self, first: FirstAnswer, contending: Tensor, answers: Mapping[int, TaskAnswer]) -> Tensor:
        """(B, T): log of each task's probability, what contenders hold together shared among them anew."""
        chosen, logs = contending.numpy(), first.log_tasks.numpy()
        several = chosen.sum(1)  # (B,)
        if several.max(initial=0) <= 1:  # nobody to share it with
            return first.log_tasks
        evidence, shares = numpy.zeros_like(logs), several.astype(numpy.float32)
        for number in answers.keys() & self.detectors.keys():
            rows, weighed = answers[number].rows.numpy(), self.detectors[number]
            others = weighed.others.numpy()
            both = chosen[rows][:, others]  # (n, others)
            if both.any():
                apart = logs[rows][:, [number]] - logs[rows][:, others]
                odds = weighed.change(answers[number].values, apart) * both / shares[rows][:, None]
                evidence[rows, number] += torch.from_numpy(odds).sum(1).numpy()
                evidence[rows[:, None], others[None]] -= odds
        shut = torch.from_numpy(~chosen)
        mass = first.log_tasks.masked_fill(shut, -torch.inf).logsumexp(1, keepdim=True)
        among = torch.from_numpy(logs + evidence).masked_fill_(shut, -torch.inf).log_softmax(1) + mass
        return torch.where(contending, among, first.log_tasks)


def opened(
    stacked: StackedTasks, features: Tensor, first: FirstAnswer, contending: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Contenders (B, T bool), p-values (B, T), not a number where a task was not asked, and who was asked (B, T bool).

    Where all contenders decline an image, the tasks nearest to it are asked; those that know it contend too.
    """
    chosen = contending.numpy()
    p_values = numpy.full(chosen.shape, numpy.nan, numpy.float32)
    stacked.write_p_values(features, first.unusual, chosen, p_values)
    declined = ~numpy.asarray((p_values > stacked.levels).any(1))  # of those that were asked
    if not declined.any() or chosen.all():
        return contending, torch.from_numpy(p_values), contending
    nearest = first.unusual.topk(min(NEAREST, chosen.shape[1]), 1, largest=False).indices.numpy()
    asked = numpy.zeros_like(chosen)
    numpy.put_along_axis(asked, nearest, True, 1)
    asked &= ~chosen & declined[:, None]
    stacked.write_p_values(features, first.unusual, asked, p_values)
    joining = asked & stacked.accepts(p_values, chosen)
    return torch.from_numpy(chosen | joining), torch.from_numpy(p_values), torch.from_numpy(chosen | asked)


def joint(
    stacked: StackedTasks, first: FirstAnswer, log_tasks: Tensor, answers: Mapping[int, TaskAnswer]
) -> tuple[Tensor, Tensor]:
    """Probabilities (B, classes of all tasks) that decide, and those that are told; both sum to 1.

    Parameters
    ----------
    log_tasks
        (B, T): as `Contest.log_tasks`; what is not of a task that answered keeps its share of stage one's.
    """
    ridge, logs = first.log_classes.numpy(), log_tasks.numpy()
    deciding = ridge if log_tasks is first.log_tasks else ridge + (logs - first.log_tasks.numpy())[:, stacked.owners]
    if not answers:
        return (alone := torch.from_numpy(deciding).exp()), alone
    most, classes = stacked.places.shape[1], ridge.shape[1]
    rows = numpy.concatenate([one.rows.numpy() for one in answers.values()])
    tasks = numpy.repeat([*answers], [len(one.rows) for one in answers.values()])
    heads = [one.logits.numpy() for one in answers.values()]
    if len(stacked.owners) < stacked.places.size:  # some tasks have fewer classes than others
        heads = [_padded(one, most) for one in heads]
        ridge, deciding = _padded(ridge, classes + 1), _padded(deciding, classes + 1)
    places = rows[:, None], stacked.places[tasks]  # (N, K)
    within, told = stacked.within(numpy.concatenate(heads), ridge[places], tasks)
    own = logs[rows, tasks][:, None]
    found: list[Tensor] = []
    for one in (within,) if told is within else (within, told):
        wide = deciding.copy()
        wide[places] = own + one
        found.append(torch.from_numpy(wide[:, :classes]).exp())
    return found[0], found[-1]


def _padded(values: Floats, count: int) -> Floats:
    """Values (N, M) and minus infinity after them, (N, count)."""
    found = numpy.full((len(values), count), -numpy.inf, numpy.float32)
    found[:, : values.shape[1]] = values
    return found


def with_head(
    first: FirstAnswer, log_tasks: Tensor, head: Tensor, share: float, asked: Tensor, sizes: Sequence[int]
) -> Tensor:
    """(M, classes of all tasks): probabilities as `joint` tells them, of images of the last task.

    Parameters
    ----------
    log_tasks
        (M, T): as `Contest.log_tasks`.
    head
        (M, K): the last task's logits, over its temperature.
    share
        Of that head beside stage one.
    asked
        (M,) bool: where the last task contends.
    sizes
        Classes of each task.
    """
    spread = (log_tasks - first.log_tasks).repeat_interleave(torch.tensor(sizes), 1)
    found, own = first.log_classes + spread, sizes[-1]
    beside = torch.log_softmax(first.log_classes[:, -own:], 1)
    within = torch.log_softmax(share * torch.log_softmax(head, 1) + (1 - share) * beside, 1)
    last = torch.where(asked[:, None], log_tasks[:, -1:] + within, found[:, -own:])
    return torch.cat([found[:, :-own], last], 1).exp()
