"""Stage two of an answer: the tasks that contend for an image are run, and decide among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from engram.nn.capacity import TaskInfo
from engram.recognition.staged.agreement import weights
from engram.recognition.staged.detectors import ValueDetector, separations
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.score_space import squared
from engram.recognition.staged.stacked_tasks import HEAD, StackedTasks
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

    def change(self, values: Tensor, first: Tensor) -> Tensor:
        """(B, others): what is to be added to stage one's log-odds (B, others), for what the detector reads (B, P)."""
        odds = (SHARPNESS * self.detector.log_odds(values)).clamp(-MOST_ODDS, MOST_ODDS)
        return (self.weights[:, 0] - 1) * first + self.weights[:, 1] * odds


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
        evidence = torch.zeros_like(first.log_tasks)
        several = contending.sum(1).clamp_min(1).float()  # (B,)
        for number in answers.keys() & self.detectors.keys():
            answer, weighed = answers[number], self.detectors[number]
            others = weighed.others
            both = contending[answer.rows][:, others]  # (n, others)
            logs = first.log_tasks[answer.rows]
            change = weighed.change(answer.values, logs[:, [number]] - logs[:, others])
            odds = change * both / several[answer.rows][:, None]
            evidence[answer.rows, number] += odds.sum(1)
            evidence[answer.rows[:, None], others[None]] -= odds
        shut = ~contending
        mass = first.log_tasks.masked_fill(shut, -torch.inf).logsumexp(1, keepdim=True)
        among = torch.log_softmax((first.log_tasks + evidence).masked_fill(shut, -torch.inf), 1) + mass
        return torch.where(contending, among, first.log_tasks)


def opened(
    stacked: StackedTasks, features: Tensor, first: FirstAnswer, contending: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Contenders (B, T bool), p-values (B, T), not a number where a task was not asked, and who was asked (B, T bool).

    Where all contenders decline an image, the tasks nearest to it are asked; those that know it contend too.
    """
    p_values = torch.full(contending.shape, torch.nan)
    stacked.write_p_values(features, first.unusual, contending, p_values)
    declined = ~((p_values > stacked.levels) & contending).any(1)
    if not bool(declined.any()) or bool(contending.all()):
        return contending, p_values, contending
    nearest = first.unusual.topk(min(NEAREST, contending.shape[1]), 1, largest=False).indices
    asked = torch.zeros_like(contending).scatter(1, nearest, True) & ~contending & declined[:, None]
    stacked.write_p_values(features, first.unusual, asked, p_values)
    return contending | (asked & stacked.accepts(p_values, contending)), p_values, contending | asked


def joint(
    stacked: StackedTasks, first: FirstAnswer, log_tasks: Tensor, answers: Mapping[int, TaskAnswer]
) -> tuple[Tensor, Tensor]:
    """Probabilities (B, classes of all tasks) that decide, and those that are told; both sum to 1.

    Parameters
    ----------
    log_tasks
        (B, T): as `Contest.log_tasks`; what is not of a task that answered keeps its share of stage one's.
    """
    spread = log_tasks - first.log_tasks  # (B, T)
    sizes = (stacked.places < first.log_classes.shape[1]).sum(1)
    deciding = first.log_classes + spread.repeat_interleave(sizes, 1)
    if not answers:
        return (found := deciding.exp()), found
    most = stacked.places.shape[1]
    given = [pad(one.logits, (0, most - one.logits.shape[1]), value=-torch.inf) for one in answers.values()]
    rows = torch.cat([one.rows for one in answers.values()])
    tasks = torch.cat([torch.full((len(one.rows),), number) for number, one in answers.items()])
    places = stacked.places[tasks]  # (N, K)
    padded = pad(first.log_classes, (0, 1), value=-torch.inf)
    within, told = stacked.within(torch.cat(given), padded[rows[:, None], places], tasks)
    own = log_tasks[rows, tasks][:, None]
    decided = pad(deciding, (0, 1)).index_put((rows[:, None], places), own + within)[:, :-1].exp()
    if told is within:
        return decided, decided
    return decided, pad(deciding, (0, 1)).index_put((rows[:, None], places), own + told)[:, :-1].exp()


def with_head(first: FirstAnswer, log_tasks: Tensor, head: Tensor, asked: Tensor, sizes: Sequence[int]) -> Tensor:
    """(M, classes of all tasks): probabilities as `joint` tells them, of images of the last task.

    Parameters
    ----------
    log_tasks
        (M, T): as `Contest.log_tasks`.
    head
        (M, K): the last task's logits, over its temperature.
    asked
        (M,) bool: where the last task contends.
    sizes
        Classes of each task.
    """
    spread = (log_tasks - first.log_tasks).repeat_interleave(torch.tensor(sizes), 1)
    found, own = first.log_classes + spread, sizes[-1]
    beside = torch.log_softmax(first.log_classes[:, -own:], 1)
    within = torch.log_softmax(HEAD * torch.log_softmax(head, 1) + (1 - HEAD) * beside, 1)
    last = torch.where(asked[:, None], log_tasks[:, -1:] + within, found[:, -own:])
    return torch.cat([found[:, :-own], last], 1).exp()
