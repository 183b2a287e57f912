"""Stacked tasks: a batch takes the same few operations however many tasks it hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from engram.nn.capacity import TaskInfo
from engram.recognition.conformal import CombinedScore, ConformalScores
from engram.recognition.density import Density
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.score_space import squared

HEAD = 0.5
"""Share of the head in the log-probabilities of a task's classes; the other is stage one's."""


ORDINARY = 0.1
"""The p-value from which an image is known to a task that stage one does not give it to: of several that are asked, one
would else know a stranger by chance."""


@dataclass(frozen=True)
class StackedScores:
    """Conformal scores of T tasks, asked for pairs of a task and a value."""

    centres: Tensor
    """(T,)."""
    scales: Tensor
    """(T,)."""
    values: Tensor
    """(T, Q): ascending, infinite where a task has fewer."""
    counts: Tensor
    """(T,)."""
    farthest: Tensor
    """(T,): the log of the share beyond the largest."""
    largest: Tensor
    """(T,)."""

    @classmethod
    def of(cls, scores: Sequence[ConformalScores]) -> Self:
        """Of each task, every one of at least one value."""
        most = max(len(one.values) for one in scores)
        counts = torch.tensor([len(one.values) for one in scores])
        largest = torch.stack([one.values[-1] for one in scores])
        centres, scales = (torch.stack([getattr(one, name) for one in scores]) for name in ("centre", "scale"))
        values = torch.stack([pad(one.values, (0, most - len(one.values)), value=torch.inf) for one in scores])
        return cls(centres, scales, values, counts, _log_tails((largest - centres) / scales, counts), largest)

    def standardised(self, tasks: Tensor, values: Tensor) -> Tensor:
        """(N,): values (N,) in standard deviations of what their tasks' (N,) own images show."""
        return (values - self.centres[tasks]) / self.scales[tasks]

    def p_values(self, tasks: Tensor, values: Tensor) -> Tensor:
        """(N,): as `ConformalScores.p_value`, for values (N,) of tasks (N,)."""
        counts = self.counts[tasks]
        nearer = torch.searchsorted(self.values[tasks], values[:, None].contiguous())[:, 0]
        counted = (counts - nearer + 1) / (counts + 1)
        beyond = (_log_tails(self.standardised(tasks, values), counts) - self.farthest[tasks]).clamp_max(0).exp()
        return torch.where(values > self.largest[tasks], counted * beyond, counted)


def _log_tails(values: Tensor, counts: Tensor) -> Tensor:
    """As `conformal` takes it for one number of others, for as many numbers as there are values (N,)."""
    freedom = (counts - 1).clamp_min(1).float()
    t = values * (freedom / (counts + 1)).sqrt()
    bounded = (freedom * torch.log1p(t.square() / freedom)).sqrt() * ((8 * freedom + 1) / (8 * freedom + 3))
    found: Tensor = torch.special.log_ndtr(-bounded.copysign(t))
    return found


@dataclass(frozen=True)
class PreparedDensity:
    """A density with everything computed that does not depend on the image."""

    directions: Tensor
    """(F, rank)."""
    scale: Tensor
    """(rank,): the root of each variance."""
    means: Tensor
    """(classes, F)."""
    turned: Tensor
    """(classes, rank): the means along the directions."""
    scaled: Tensor
    """(classes, rank): the same over `scale`."""
    rest: Tensor
    """(): variance of the residual, per dimension."""

    @classmethod
    def of(cls, density: Density) -> Self:
        """Of a density."""
        scale, turned = density.variances.sqrt(), density.means @ density.directions
        return cls(density.directions, scale, density.means, turned, turned / scale, density.rest)

    def distance(self, features: Tensor) -> Tensor:
        """(B, F) -> (B,): as `Density.distance`."""
        along = features @ self.directions  # (B, rank)
        within = squared(along / self.scale, self.scaled)  # (B, classes)
        outside = (squared(features, self.means) - squared(along, self.turned)).clamp_min_(0)
        return outside.div_(self.rest).add_(within).amin(1)


@dataclass(frozen=True)
class StackedTasks:
    """Densities, conformal scores and calibrations of all tasks."""

    densities: tuple[PreparedDensity, ...]
    alone: StackedScores
    """Of log distances."""
    scattered: StackedScores
    both: StackedScores
    combined: Tensor
    """(T,) bool: whether a task has a combined score."""
    levels: Tensor
    """(T,): the p-value up to which an image is unknown; -1 where that cannot be told."""
    vouched: Tensor
    """(T,) bool."""
    temperatures: Tensor
    """(T,): of heads."""
    offsets: Tensor
    """(T, K): added to a head's logits; K being the most classes that a task has."""
    priors: Tensor
    """(T, K): logs of what classes are expected to come like, 0 where they come alike."""
    balanced: bool
    """Whether any task has classes of unequal size."""
    places: Tensor
    """(T, K) int64: the place of each class among those of all tasks; that after the last where a task has fewer."""

    @classmethod
    def of(cls, infos: Sequence[TaskInfo], profiles: Sequence[StagedProfile]) -> Self:
        """Of all tasks in order, of which there is at least one."""
        blank = ConformalScores(torch.tensor(0.0), torch.tensor(1.0), torch.zeros(1))
        pairs = [one.combined or CombinedScore(blank, blank) for one in profiles]
        most, sizes = max(len(info.classes) for info in infos), [len(info.classes) for info in infos]
        firsts = [sum(sizes[:number]) for number in range(len(sizes))]
        offsets, priors = torch.zeros(len(sizes), most), torch.zeros(len(sizes), most)
        places = torch.full((len(sizes), most), sum(sizes))
        for number, (size, profile) in enumerate(zip(sizes, profiles, strict=True)):
            places[number, :size] = torch.arange(firsts[number], firsts[number] + size)
            if profile.balance is not None:
                offsets[number, :size], priors[number, :size] = profile.balance.offset, profile.balance.log_prior
        return cls(
            tuple(PreparedDensity.of(one.density) for one in profiles),
            StackedScores.of([one.density.log_scores for one in profiles]),
            StackedScores.of([one.scattered for one in pairs]),
            StackedScores.of([one.both for one in pairs]),
            torch.tensor([one.combined is not None for one in profiles]),
            torch.tensor([-1.0 if one.level is None else one.level for one in profiles]),
            torch.tensor([one.vouches for one in profiles]),
            torch.stack([one.temperature for one in profiles]),
            offsets,
            priors,
            any(one.balance is not None for one in profiles),
            places,
        )

    def accepts(self, p_values: Tensor, contending: Tensor) -> Tensor:
        """(B, T) bool: whether a task that can tell does not call an image unknown, by p-values (B, T).

        Parameters
        ----------
        contending
            (B, T) bool: the tasks that contend; others have to find the image an ordinary one (`ORDINARY`).
        """
        least = torch.where(contending, self.levels, self.levels.clamp_min(ORDINARY))
        return (p_values > least) & (self.levels >= 0)

    def write_p_values(self, features: Tensor, unusual: Tensor, asked: Tensor, into: Tensor) -> None:
        """Write `p_values` of the pairs that are asked (B, T bool) into (B, T)."""
        tasks, rows = asked.T.nonzero(as_tuple=True)
        if len(rows):
            into[rows, tasks] = self.p_values(features, unusual, rows, tasks)

    def p_values(self, features: Tensor, unusual: Tensor, rows: Tensor, tasks: Tensor) -> Tensor:
        """(N,): conformal p-values of pairs of an image (N,) and a task (N,), sorted by task.

        Parameters
        ----------
        features
            (B, F) of the commons.
        unusual
            (B, T): how far out of each task stage one finds an image.
        """
        counts = torch.bincount(tasks, minlength=len(self.densities)).tolist()
        parts = zip(self.densities, torch.split(rows, counts), strict=True)
        found = [density.distance(features[own]) for density, own in parts if len(own)]
        logs = torch.cat(found).clamp_min(1e-12).log()
        alone = self.alone.p_values(tasks, logs)
        outer = self.scattered.standardised(tasks, unusual[rows, tasks]).clamp_min(0)
        together = torch.hypot(self.alone.standardised(tasks, logs).clamp_min(0), outer)
        either = 2 * torch.minimum(self.both.p_values(tasks, together), alone)  # as in `StagedProfile.p_values`
        return torch.where(self.combined[tasks], either.clamp_max(1), alone)

    def within(self, logits: Tensor, ridge: Tensor, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N, K) of tasks' (N,) own classes: those that decide, and those that are told.

        Stage one has classes of other tasks to learn from, a head has an own network: they err at other images, and
        the mean of their logs errs less often than either.

        Parameters
        ----------
        logits
            (N, K) of heads, minus infinity where a task has fewer classes.
        ridge
            (N, K): stage one's log-probabilities of the same classes.
        """
        head = torch.log_softmax((logits + self.offsets[tasks]) / self.temperatures[tasks][:, None], 1)
        beside = torch.log_softmax(ridge, 1)
        deciding = torch.log_softmax(HEAD * head + (1 - HEAD) * beside, 1)
        if not self.balanced:
            return deciding, deciding
        return deciding, torch.log_softmax(deciding + self.priors[tasks], 1)
