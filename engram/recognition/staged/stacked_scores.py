"""Stacked scores: conformal p-values of many pairs of a task and a value in few operations.

What a processor rounds in one way only (sums, products, quotients) is left to numpy, which has less to do before it
starts. Logarithms and roots are PyTorch's, whose last bits are those of `ConformalScores`: its roots are not always the
nearest number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from engram.recognition.conformal import ConformalScores

Floats = NDArray[numpy.float32]
Places = NDArray[numpy.int64]


@dataclass(frozen=True, eq=False)
class Tails:
    """Tails of Student's t as `conformal` takes them, of T tasks."""

    freedom: Floats
    """(T,): degrees of freedom."""
    root: Floats
    """(T,): multiplies deviations."""
    ratio: Floats
    """(T,): Wallace's, of the normal deviate."""

    @classmethod
    def of(cls, counts: Tensor) -> Self:
        """Of so many others (T,) each."""
        freedom = (counts - 1).clamp_min(1).float()
        ratio = (8 * freedom + 1) / (8 * freedom + 3)
        return cls(freedom.numpy(), (freedom / (counts + 1)).sqrt().numpy(), ratio.numpy())

    def logs(self, values: Floats, tasks: Places) -> Floats:
        """(N,): the log of the share above each deviation (N,) from the mean of what its task (N,) has."""
        freedom, t = self.freedom[tasks], values * self.root[tasks]
        grown = torch.log1p(torch.from_numpy(t * t / freedom)).numpy()
        bounded = torch.from_numpy(freedom * grown).sqrt_().numpy() * self.ratio[tasks]
        found: Floats = torch.special.log_ndtr(torch.from_numpy(-numpy.copysign(bounded, t))).numpy()
        return found


@dataclass(frozen=True, eq=False)
class StackedScores:
    """Conformal scores of T tasks."""

    centres: Floats
    """(T,)."""
    scales: Floats
    """(T,)."""
    values: Tensor
    """(T, Q): ascending, infinite where a task has fewer."""
    counts: Places
    """(T,)."""
    tails: Tails
    farthest: Floats
    """(T,): the log of the share beyond the largest."""
    largest: Floats
    """(T,)."""

    @classmethod
    def of(cls, scores: Sequence[ConformalScores]) -> Self:
        """Of each task, every one of at least one value."""
        most = max(len(one.values) for one in scores)
        counts = torch.tensor([len(one.values) for one in scores])
        largest = torch.stack([one.values[-1] for one in scores]).numpy()
        centres, scales = (torch.stack([getattr(one, name) for one in scores]).numpy() for name in ("centre", "scale"))
        values = torch.stack([pad(one.values, (0, most - len(one.values)), value=torch.inf) for one in scores])
        tails = Tails.of(counts)
        farthest = tails.logs((largest - centres) / scales, numpy.arange(len(scores)))
        return cls(centres, scales, values, counts.numpy(), tails, farthest, largest)

    def standardised(self, tasks: Places, values: Floats) -> Floats:
        """(N,): values (N,) in standard deviations of what their tasks' (N,) own images show."""
        found: Floats = (values - self.centres[tasks]) / self.scales[tasks]
        return found

    def p_values(self, tasks: Places, values: Floats, standardised: Floats) -> Floats:
        """(N,): as `ConformalScores.p_value`, for values (N,) of tasks (N,), also given as `standardised`."""
        among, each = self.values.index_select(0, torch.from_numpy(tasks)), torch.from_numpy(values)[:, None]
        nearer = torch.searchsorted(among, each).numpy()[:, 0]
        counts = self.counts[tasks]
        counted = (counts - nearer + 1).astype(numpy.float32) / (counts + 1).astype(numpy.float32)
        farther = values > self.largest[tasks]
        if not farther.any():
            return cast(Floats, counted)
        beyond = numpy.minimum(self.tails.logs(standardised, tasks) - self.farthest[tasks], numpy.float32(0))
        found: Floats = numpy.where(farther, counted * torch.from_numpy(beyond).exp_().numpy(), counted)
        return found
