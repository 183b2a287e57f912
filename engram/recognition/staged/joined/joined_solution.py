"""Solutions over each of the commons that stand side by side, and their scores averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import torch
from torch import Tensor

from engram.nn.commons.ridges import Ridges
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.joined.output_deviations import OutputDeviations
from engram.recognition.staged.joined.relative_distance import RelativeDistance
from engram.recognition.staged.score_space import ScoreSpace, SolvedTotals
from engram.recognition.staged.task_evidence import LeftOutScores, temperature_losses

SHARES = 8
"""Into how many equal shares the weight of all commons is divided; into fewer where they are more than two."""

Mixture = tuple[tuple[float, float], ...]
"""For each way to share the weight (`mixtures`): the log-temperature that fits a task's images, and their mean loss."""


def mixtures(count: int) -> list[tuple[float, ...]]:
    """The ways to share a weight of one among so many commons: equal shares first, so that they win where all fit."""
    if count == 1:
        return [(1.0,)]
    shares = SHARES if count == 2 else 4
    ways = [way for way in product(range(shares + 1), repeat=count) if sum(way) == shares]
    ways.sort(key=lambda way: sum((one - shares / count) ** 2 for one in way))
    return [tuple(one / shares for one in way) for way in ways]


def chosen_mixture(count: int, evidence: Iterable[tuple[Mixture, float]]) -> int:
    """Which of the `mixtures` of so many commons fits all tasks' images best, by each task's evidence and images."""
    return chosen_way(len(mixtures(count)), evidence)


def chosen_way(ways: int, evidence: Iterable[tuple[Mixture, float]]) -> int:
    """As `chosen_mixture`, of so many ways to share the weight."""
    losses = [0.0] * ways
    for mixture, images in evidence:
        for number, (_, loss) in enumerate(mixture):
            losses[number] += loss * images
    return min(range(ways), key=losses.__getitem__)


@dataclass(frozen=True)
class JoinedLeftOut:
    """Images of a task in the score space of each of the commons, each as if it had not been learned from."""

    each: tuple[LeftOutScores, ...]

    def mixed(self, weights: Sequence[float]) -> LeftOutScores:
        """In the space that averages them."""
        if len(self.each) == 1:
            return self.each[0]
        pairs = list(zip(weights, self.each, strict=True))
        distances = torch.stack([weight * one.distances for weight, one in pairs]).sum(0)
        points = [math.sqrt(weight) * one.points for weight, one in pairs if weight]
        return LeftOutScores(distances, self.each[0].labels, torch.cat(points, 1))

    def evidence(self) -> Mixture:
        """What the images say of each way to share the weight."""
        found = []
        for weights in mixtures(len(self.each)):
            log_temperature, loss = temperature_losses(self.mixed(weights))
            found.append((log_temperature, loss))
        return tuple(found)


@dataclass(frozen=True)
class JoinedSolution:
    """The regression of each of the commons over all tasks."""

    each: tuple[SolvedTotals, ...]

    @classmethod
    def of(cls, totals: JoinedTotals, ridges: Sequence[Ridges]) -> Self:
        return cls(tuple(map(SolvedTotals.of, totals.each, ridges)))

    def space(
        self, weights: Sequence[float], *, relative: bool = False, outputs: OutputDeviations | None = None
    ) -> ScoreSpace:
        """The space in which squared distances are the weighted mean of those in each.

        What has no weight is left out, so that it costs nothing to serve but its features.

        Parameters
        ----------
        relative
            Whether strangers are told by distances relative to all classes.
        outputs
            What else tells them then.
        """
        found = self._space(weights)
        if not relative:
            return found
        parts = [(weight, one.means) for weight, one in zip(weights, self.each, strict=True) if weight]
        return replace(found, relative=RelativeDistance.of(parts, outputs))

    def _space(self, weights: Sequence[float]) -> ScoreSpace:
        if len(self.each) == 1:
            return self.each[0].space
        parts = [solved.space for solved in self.each]
        blocks, offsets, means = [], [], []
        for weight, part in zip(weights, parts, strict=True):
            root = math.sqrt(weight)
            kept = part.weights.shape[1] if weight else 0
            blocks.append(root * part.weights[:-1, :kept])
            offsets.append(root * part.weights[-1, :kept])
            means.append(root * part.means[:, :kept])
        joined = torch.cat([_block_diagonal(blocks), torch.cat(offsets)[None]])  # (F + 1, D)
        return ScoreSpace(joined.contiguous(), torch.cat(means, 1).contiguous())

    def left_out(self, totals: JoinedTotals, task: str, features: Sequence[Tensor], labels: Tensor) -> JoinedLeftOut:
        """As `LeftOutScores.of`, from features (n, F) of each of the commons."""
        given = zip(totals.each, self.each, features, strict=True)
        return JoinedLeftOut(tuple(LeftOutScores.of(one, solved, task, own, labels) for one, solved, own in given))


def _block_diagonal(blocks: Sequence[Tensor]) -> Tensor:
    """(F, D): blocks (F_k, D_k) down the diagonal, zeros elsewhere."""
    found = torch.zeros(sum(len(block) for block in blocks), sum(block.shape[1] for block in blocks))
    row = column = 0
    for block in blocks:
        found[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return found
