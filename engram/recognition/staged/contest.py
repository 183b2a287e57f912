"""Stage two of an answer: the tasks that contend for an image are run, and decide among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from engram.nn.capacity import TaskInfo
from engram.recognition.head_balance import within_task
from engram.recognition.staged.agreement import weights
from engram.recognition.staged.detectors import ValueDetector, separations
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.recogniser import StagedRecogniser
from engram.recognition.staged.score_space import squared
from engram.recognition.staged.stage_one import FirstAnswer

NEAREST = 3
"""Tasks nearest to an image that are asked whether they know it, before it is called unknown."""

SHARPNESS = 0.5
"""Multiplies detectors' log-odds: real values have heavier tails than the Gaussians that stand for them."""

HEAD = 0.5
"""Share of the head in the log-probabilities of a task's classes; the other is stage one's."""

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
    profiles
        One for each.
    detectors
        By the place of their own task; a task may have none.
    """

    tasks: Sequence[TaskInfo]
    profiles: Sequence[StagedProfile]
    detectors: Mapping[int, WeighedDetector]

    @classmethod
    def of(cls, recogniser: StagedRecogniser, profiles: Sequence[StagedProfile]) -> Self:
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
                weighed[places[name]] = WeighedDetector(detector, torch.tensor(others), torch.tensor(pairs))
        return cls(infos, profiles, weighed)

    def p_values(self, features: Tensor, first: FirstAnswer, asked: Tensor, into: Tensor) -> None:
        """Write conformal p-values of what is asked (B, T bool) into `into` (B, T)."""
        for number in asked.any(0).nonzero().flatten().tolist():
            rows = asked[:, number].nonzero().flatten()
            into[rows, number] = self.profiles[number].p_values(features[rows], first.unusual[rows, number])

    def opened(self, features: Tensor, first: FirstAnswer, contending: Tensor) -> tuple[Tensor, Tensor]:
        """Contenders (B, T bool), and p-values (B, T), not a number where a task was not asked.

        Where all contenders decline an image, the tasks nearest to it are asked; those that know it contend too.
        """
        p_values = torch.full(contending.shape, torch.nan)
        self.p_values(features, first, contending, p_values)
        levels = torch.tensor([-1.0 if profile.level is None else profile.level for profile in self.profiles])
        declined = ~((p_values > levels) & contending).any(1)
        if not bool(declined.any()) or bool(contending.all()):
            return contending, p_values
        nearest = first.unusual.topk(min(NEAREST, len(self.tasks)), 1, largest=False).indices
        asked = torch.zeros_like(contending).scatter(1, nearest, True) & ~contending & declined[:, None]
        self.p_values(features, first, asked, p_values)
        return contending | (asked & (p_values > levels)), p_values

    def log_tasks(self, first: FirstAnswer, contending: Tensor, answers: Mapping[int, TaskAnswer]) -> Tensor:
        """(B, T): log of each task's probability, what contenders hold together shared among them anew."""
        evidence = torch.zeros_like(first.log_tasks)
        several = contending.sum(1).clamp_min(1).float()  # (B,)
        for number, answer in answers.items():
            weighed = self.detectors.get(number)
            if weighed is None:
                continue
            others = weighed.others
            both = contending[answer.rows][:, others]  # (n, others)
            if not bool(both.any()):
                continue
            logs = first.log_tasks[answer.rows]
            change = weighed.change(answer.values, logs[:, [number]] - logs[:, others])
            odds = change * both / several[answer.rows][:, None]
            evidence[answer.rows, number] += odds.sum(1)
            evidence[answer.rows[:, None], others[None]] -= odds
        shut = ~contending
        mass = first.log_tasks.masked_fill(shut, -torch.inf).logsumexp(1, keepdim=True)
        among = torch.log_softmax((first.log_tasks + evidence).masked_fill(shut, -torch.inf), 1) + mass
        return torch.where(contending, among, first.log_tasks)

    def joint(self, first: FirstAnswer, log_tasks: Tensor, answers: Mapping[int, TaskAnswer]) -> tuple[Tensor, Tensor]:
        """Probabilities (B, classes of all tasks) that decide, and those that are told; both sum to 1."""
        sizes = [len(info.classes) for info in self.tasks]
        spread = log_tasks - first.log_tasks  # what is left of stage one's, class by class
        ridge = torch.split(first.log_classes, sizes, 1)
        deciding = [part + spread[:, [number]] for number, part in enumerate(ridge)]
        telling = list(deciding)
        for number, answer in answers.items():
            profile, own = self.profiles[number], log_tasks[answer.rows][:, [number]]
            decisive, _ = within_task(answer.logits, profile.temperature, profile.balance)
            # Stage one has classes of other tasks to learn from, the head an own network: they err at other images.
            beside = ridge[number][answer.rows] - first.log_tasks[answer.rows][:, [number]]
            decisive = torch.log_softmax(HEAD * decisive + (1 - HEAD) * beside, 1)
            prior = None if profile.balance is None else profile.balance.log_prior
            told = decisive if prior is None else torch.log_softmax(decisive + prior, 1)
            deciding[number] = deciding[number].index_copy(0, answer.rows, own + decisive)
            telling[number] = telling[number].index_copy(0, answer.rows, own + told)
        decided = torch.cat(deciding, 1).exp()
        if all(profile.balance is None for profile in self.profiles):
            return decided, decided
        return decided, torch.cat(telling, 1).exp()
