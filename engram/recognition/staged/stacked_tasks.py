"""Stacked tasks: a batch takes the same few operations however many tasks it hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram.nn.capacity import TaskInfo
from engram.recognition.conformal import OF_DENSITY, OF_OTHERS, CombinedScore, ConformalScores
from engram.recognition.density import Density
from engram.recognition.staged.profile import StagedProfile
from engram.recognition.staged.score_space import squared
from engram.recognition.staged.stacked_scores import Floats, Places, StackedScores

Flags = NDArray[numpy.bool_]

ORDINARY = 0.1
"""The p-value from which an image is known to a task that stage one does not give it to: of several that are asked, one
would else know a stranger by chance."""


MOST_REPEATED = 2**20
"""Values of means that are repeated for the images of a batch, at most; of more, tasks are asked one by one."""


@dataclass(frozen=True, eq=False)
class StackedDensities:
    """Densities of T tasks with everything computed that does not depend on the image.

    A task with fewer classes than others has its first one again in their places, which is as near.
    """

    directions: tuple[Tensor, ...]
    """(F, rank) of each."""
    scales: Tensor
    """(T, rank): the root of each variance."""
    means: Tensor
    """(T, K, F)."""
    turned: Tensor
    """(T, K, rank): the means along the directions."""
    scaled: Tensor
    """(T, K, rank): the same over the scales."""
    rests: Tensor
    """(T, 1): variance of the residual, per dimension."""

    @classmethod
    def of(cls, densities: Sequence[Density]) -> Self:
        """Of densities over the same features."""
        most = max(len(one.means) for one in densities)
        means, turned, scaled = [], [], []
        for one in densities:
            along, classes = one.means @ one.directions, [*range(len(one.means)), *[0] * (most - len(one.means))]
            means.append(one.means[classes])
            turned.append(along[classes])
            scaled.append((along / one.variances.sqrt())[classes])
        scales, rests = ([getattr(one, name) for one in densities] for name in ("variances", "rest"))
        return cls(
            tuple(one.directions for one in densities),
            torch.stack(scales).sqrt(),
            torch.stack(means),
            torch.stack(turned),
            torch.stack(scaled),
            torch.stack(rests)[:, None],
        )

    def distances(self, features: Tensor, tasks: Places) -> Tensor:
        """(N,): as `Density.distance`, of features (N, F) each from its task (N,), sorted by task."""
        counts = numpy.bincount(tasks)
        asked = counts.nonzero()[0].tolist()
        if len(asked) > 1 and len(tasks) * self.means[0].numel() > MOST_REPEATED:
            each = zip(asked, torch.split(features, counts[asked].tolist()), strict=True)
            return torch.cat([self.distances(part, numpy.full(len(part), number)) for number, part in each])
        if len(asked) == 1:  # nothing has to be repeated for each image
            (number,) = asked
            along = features @ self.directions[number]  # (N, rank)
            own = slice(number, number + 1)
            means, turned, scaled = self.means[number], self.turned[number], self.scaled[number]
            scale, rest = self.scales[own], self.rests[own]
        else:
            parts = zip(asked, torch.split(features, counts[asked].tolist()), strict=True)
            along = torch.cat([part @ self.directions[number] for number, part in parts])[:, None]
            features, chosen = features[:, None], torch.from_numpy(tasks)
            every = (self.means, self.turned, self.scaled, self.scales[:, None], self.rests)
            means, turned, scaled, scale, rest = (one.index_select(0, chosen) for one in every)
        within = squared(along / scale, scaled).view(len(tasks), -1)  # (N, K)
        outside = squared(features, means).sub_(squared(along, turned)).view(len(tasks), -1)
        return outside.clamp_min_(0).div_(rest).add_(within).amin(1)


@dataclass(frozen=True, eq=False)
class StackedTasks:
    """Densities, conformal scores and calibrations of all tasks."""

    densities: StackedDensities
    alone: StackedScores
    """Of log distances."""
    scattered: StackedScores
    both: StackedScores
    combined: Flags
    """(T,): whether a task has a combined score."""
    relative: Flags
    """(T,): whether it is told by relative distances, whose scores stand in place of the scattered ones."""
    levels: Floats
    """(T,): the p-value up to which an image is unknown; -1 where that cannot be told."""
    vouched: Flags
    """(T,)."""
    temperatures: Tensor
    """(T,): of heads."""
    offsets: Floats
    """(T, K): added to a head's logits; K being the most classes that a task has."""
    shares: Floats
    """(T, 1): of heads beside stage one."""
    priors: Floats
    """(T, K): logs of what classes are expected to come like, 0 where they come alike."""
    balanced: bool
    """Whether any task has classes of unequal size."""
    sizes: Places
    """(T,): classes of each task."""
    places: Places
    """(T, K): the place of each class among those of all tasks; that after the last where a task has fewer."""
    owners: Places
    """For each class of all tasks its task."""

    @classmethod
    def of(cls, infos: Sequence[TaskInfo], profiles: Sequence[StagedProfile]) -> Self:
        """Of all tasks in order, of which there is at least one."""
        blank = ConformalScores(torch.tensor(0.0), torch.tensor(1.0), torch.zeros(1))
        pairs = [one.combined or CombinedScore(blank, blank) for one in profiles]
        sizes = [len(info.classes) for info in infos]
        offsets, priors = numpy.zeros((2, len(sizes), max(sizes)), numpy.float32)
        places = numpy.full((len(sizes), max(sizes)), sum(sizes))
        for number, (size, profile) in enumerate(zip(sizes, profiles, strict=True)):
            places[number, :size] = sum(sizes[:number]) + numpy.arange(size)
            if profile.balance is not None:
                offsets[number, :size] = profile.balance.offset.numpy()
                priors[number, :size] = profile.balance.log_prior.numpy()
        return cls(
            StackedDensities.of([one.density for one in profiles]),
            StackedScores.of([one.density.log_scores for one in profiles]),
            StackedScores.of([one.relative or pair.scattered for one, pair in zip(profiles, pairs, strict=True)]),
            StackedScores.of([one.both for one in pairs]),
            numpy.array([one.combined is not None for one in profiles]),
            numpy.array([one.relative is not None for one in profiles]),
            numpy.array([-1.0 if one.level is None else one.level for one in profiles], numpy.float32),
            numpy.array([one.vouches for one in profiles]),
            torch.stack([one.temperature for one in profiles]),
            offsets,
            numpy.array([[one.head_share] for one in profiles], numpy.float32),
            priors,
            any(one.balance is not None for one in profiles),
            numpy.array(sizes),
            places,
            numpy.repeat(numpy.arange(len(sizes)), sizes),
        )

    def accepts(self, p_values: Floats, contending: Flags) -> Flags:
        """(B, T): whether a task that can tell does not call an image unknown, by p-values (B, T).

        Parameters
        ----------
        contending
            (B, T): the tasks that contend; others have to find the image an ordinary one (`ORDINARY`).
        """
        least = numpy.where(contending, self.levels, numpy.maximum(self.levels, numpy.float32(ORDINARY)))
        found: Flags = (p_values > least) & (self.levels >= 0)
        return found

    def write_p_values(self, features: Tensor, unusual: Tensor, asked: Flags, into: Floats) -> None:
        """Write `p_values` of the pairs that are asked (B, T) into (B, T)."""
        tasks, rows = asked.T.nonzero()
        if len(rows):
            into[rows, tasks] = self.p_values(features, unusual, rows, tasks)

    def p_values(self, features: Tensor, unusual: Tensor, rows: Places, tasks: Places) -> Floats:
        """(N,): conformal p-values of pairs of an image (N,) and a task (N,), sorted by task.

        Parameters
        ----------
        features
            (B, F) of the commons.
        unusual
            (B, T): how far out of each task stage one finds an image.
        """
        whole = len(rows) == len(features) and tasks[0] == tasks[-1]
        width = self.densities.means.shape[2]  # of several commons, densities are over the first
        own = features if features.shape[1] == width else features[:, :width].contiguous()
        chosen = own if whole else own.index_select(0, torch.from_numpy(rows))
        logs: Floats = self.densities.distances(chosen, tasks).clamp_min_(1e-12).log_().numpy()
        with numpy.errstate(all="ignore"):  # what is infinitely far out has no more digits, and is unknown
            inner = self.alone.standardised(tasks, logs)
            alone = self.alone.p_values(tasks, logs, inner)
            if self.relative.any():
                return self._relative_p_values(tasks, unusual.numpy()[rows, tasks], alone)
            outer = self.scattered.standardised(tasks, unusual.numpy()[rows, tasks])
            sides = [torch.from_numpy(numpy.maximum(one, numpy.float32(0))) for one in (inner, outer)]
            together: Floats = torch.hypot(*sides).numpy()
            both = self.both.p_values(tasks, together, self.both.standardised(tasks, together))
            either = 2 * numpy.minimum(both, alone)  # as in `StagedProfile.p_values`
            found: Floats = numpy.where(self.combined[tasks], numpy.minimum(either, 1), alone)
        return found

    def _relative_p_values(self, tasks: Places, unusual: Floats, alone: Floats) -> Floats:
        """(N,): where some tasks, mostly all, are told by distances relative to all classes."""
        near = self.scattered.p_values(tasks, unusual, self.scattered.standardised(tasks, unusual))
        least = numpy.minimum(near * numpy.float32(OF_OTHERS), alone * numpy.float32(OF_DENSITY))
        found: Floats = numpy.where(self.relative[tasks], numpy.minimum(least, numpy.float32(1)), alone)
        return found

    def within(self, logits: Floats, ridge: Floats, tasks: Places) -> tuple[Floats, Floats]:
        """Log-probabilities (N, K) of tasks' (N,) own classes: those that decide, and those that are told.

        Stage one has classes of other tasks to learn from, a head has an own network; see `head_share`.

        Parameters
        ----------
        logits
            (N, K) of heads, minus infinity where a task has fewer classes.
        ridge
            (N, K): stage one's log-probabilities of the same classes.
        """
        if self.balanced:
            logits = logits + self.offsets[tasks]
        given = numpy.stack([logits / self.temperatures.numpy()[tasks][:, None], ridge])
        head, beside = torch.log_softmax(torch.from_numpy(given), 2).numpy()
        share = self.shares[tasks]
        deciding: Floats = torch.log_softmax(torch.from_numpy(share * head + (1 - share) * beside), 1).numpy()
        if not self.balanced:
            return deciding, deciding
        return deciding, torch.log_softmax(torch.from_numpy(deciding + self.priors[tasks]), 1).numpy()
