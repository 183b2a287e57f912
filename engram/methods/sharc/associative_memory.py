"""Associative memories that complete masked feature maps: Gaussian and modern Hopfield.

Both take the map with the lowest energy given the cue. What the two cost differs: `GaussianMemory` learns how channels
go together and keeps nothing else, so that masked maps and the memory together are smaller than the maps.
`HopfieldMemory` holds every pattern whole: with it, masking saves nothing, and the masked cues come on top.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from engram.checkpointing.tensors import pack, unpack
from engram.errors import DamagedSnapshot
from engram.methods.sharc.masked_maps import Values, quantised, restored

CHUNK = 256
"""Cues recalled at a time."""

FLOOR = 1e-3
"""Least variance a channel has of its own, as a share of the channels' mean variance."""


class AssociativeMemory(ABC):
    """An associative memory that completes masked feature maps. Maps are never negative, nor is what is recalled."""

    kind: ClassVar[str]

    @abstractmethod
    def learned(self, maps: Tensor, labels: Tensor, classes: int) -> Self:
        """The memory after it has seen maps (N, channels, places) of new classes, `classes` being all there are now."""

    @abstractmethod
    def _recalled(self, cues: Tensor, masks: Tensor, labels: Tensor | None, noise: float) -> Tensor: ...

    @abstractmethod
    def tensors(self) -> Mapping[str, Tensor]:
        """All of the memory."""

    @classmethod
    @abstractmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self: ...

    @property
    def nbytes(self) -> int:
        """What the memory's own tensors take."""
        return sum(part.numel() * part.element_size() for part in self.tensors().values())

    @torch.no_grad()
    def recall(self, cues: Tensor, masks: Tensor, labels: Tensor | None = None, noise: float = 0.0) -> Tensor:
        """Whole maps from masked ones.

        Parameters
        ----------
        cues
            (N, channels, places); what is masked is not read.
        masks
            (N, channels) bool: the channels that are known.
        labels
            (N,) int64, which narrow what is recalled; None where they are unknown.
        noise
            Standard deviation of what was added to the known values; with 0 they are recalled as they are.
        """
        parts = []
        for start in range(0, len(cues), CHUNK):
            rows = slice(start, start + CHUNK)
            given = torch.where(masks[rows, :, None], cues[rows], 0.0)
            of = None if labels is None else labels[rows]
            found = self._recalled(given, masks[rows], of, noise).clamp_min(0)
            parts.append(torch.where(masks[rows, :, None], given, found) if noise == 0 else found)
        return torch.cat(parts) if parts else torch.zeros_like(cues)

    def dump(self) -> bytes:
        """The memory as bytes."""
        return pack(self.kind, {}, self.tensors())

    @classmethod
    def load(cls, data: bytes) -> Self:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        _, tensors = unpack(cls.kind, data)
        try:
            return cls.from_tensors(tensors)
        except KeyError as error:
            raise DamagedSnapshot(f"the {cls.kind} memory lacks {error}") from error


@dataclass(frozen=True)
class NoCompletion(AssociativeMemory):
    """No memory: what is masked is recalled as zero."""

    kind: ClassVar[str] = "blank"

    def learned(self, maps: Tensor, labels: Tensor, classes: int) -> NoCompletion:
        return self

    def _recalled(self, cues: Tensor, masks: Tensor, labels: Tensor | None, noise: float) -> Tensor:
        return cues

    def tensors(self) -> Mapping[str, Tensor]:
        return {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> NoCompletion:
        return cls()


@dataclass(frozen=True)
class GaussianMemory(AssociativeMemory):
    """A Gaussian around each class's mean map, whose covariance over channels all classes and places share.

    The covariance is `factor factor^T + diag(own)`; recall is the conditional mean, in closed form. New classes add to
    the covariance by their numbers, as merging principal components does (Ross et al. 2008): no map is needed for it.

    Parameters
    ----------
    means
        (classes, channels, places) float16.
    factor
        (channels, rank) float16: principal directions, as long as the standard deviations along them.
    own
        (channels,) float32: the variance that the factor leaves.
    count
        (): maps that the covariance was made of, float64.
    rank
        Directions kept.
    """

    means: Tensor
    factor: Tensor
    own: Tensor
    count: Tensor
    rank: int

    kind: ClassVar[str] = "gaussian"

    @classmethod
    def empty(cls, channels: int, places: int, rank: int) -> GaussianMemory:
        return cls(
            torch.zeros(0, channels, places, dtype=torch.float16),
            torch.zeros(channels, min(rank, channels), dtype=torch.float16),
            torch.zeros(channels),
            torch.tensor(0.0, dtype=torch.float64),
            min(rank, channels),
        )

    @property
    def covariance(self) -> Tensor:
        """(channels, channels) float64."""
        factor = self.factor.double()
        return factor @ factor.T + torch.diag(self.own.double())

    def learned(self, maps: Tensor, labels: Tensor, classes: int) -> GaussianMemory:
        known, (channels, places) = len(self.means), maps.shape[1:]
        means = torch.stack([maps[labels == label].mean(0) for label in range(known, classes)]).to(torch.float16)
        scatter = torch.zeros(channels, channels, dtype=torch.float64)
        for part, label in zip(torch.split(maps, CHUNK), torch.split(labels, CHUNK), strict=True):
            centred = (part - means[label - known].float()).double()
            centred = centred.transpose(0, 1).flatten(1)  # (channels, N x places)
            scatter += centred @ centred.T
        total = self.count + len(maps)
        covariance = (self.covariance * self.count + scatter / places) / total
        values, vectors = torch.linalg.eigh(covariance)  # ascending
        factor = (vectors[:, -self.rank :] * values[-self.rank :].clamp_min(0).sqrt()).to(torch.float16)
        factor = factor.contiguous()  # products round by layout, and what is read from a file is contiguous
        left = covariance.diagonal() - factor.double().square().sum(1)
        own = left.clamp_min(FLOOR * float(covariance.diagonal().mean()) + 1e-12).float()
        return GaussianMemory(torch.cat([self.means, means]), factor, own, total, self.rank)

    def _recalled(self, cues: Tensor, masks: Tensor, labels: Tensor | None, noise: float) -> Tensor:
        """The mean of the whole given the known part; without labels, around the mean of all classes' means.

        With z the latent of the factor, W the factor and D + noise^2 the known channels' own variance, z has the mean
        (I + W^T D^-1 W)^-1 W^T D^-1 (cue - mean).
        """
        factor = self.factor.float()
        means = self.means.float().mean(0, keepdim=True) if labels is None else self.means.float()[labels]
        gap = torch.where(masks[:, :, None], cues - means, 0.0)  # (N, channels, places)
        precision = masks / (self.own + noise**2)  # (N, channels)
        weighted = precision[:, :, None] * factor  # (N, channels, rank)
        system = factor.T @ weighted + torch.eye(self.rank)  # (N, rank, rank)
        latent = torch.linalg.solve(system, weighted.transpose(1, 2) @ gap)  # (N, rank, places)
        common = factor @ latent  # (N, channels, places)
        gain = (precision * self.own)[:, :, None]
        found: Tensor = means + common + gain * (gap - common)
        return found

    def tensors(self) -> Mapping[str, Tensor]:
        return {"means": self.means, "factor": self.factor, "own": self.own, "count": self.count}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> GaussianMemory:
        return cls(tensors["means"], tensors["factor"], tensors["own"], tensors["count"], tensors["factor"].shape[1])


@dataclass(frozen=True)
class HopfieldMemory(AssociativeMemory):
    """A modern Hopfield memory (Ramsauer et al. 2020): attention of the cue over all patterns, which it holds whole.

    An update is x <- sum_i p_i x_i with p = softmax_i of -beta / 2 |x_i - x|^2, which lowers the energy
    |x|^2 / 2 - lse_i(beta (x_i x - |x_i|^2 / 2)) / beta: Ramsauer's, with a bias that keeps long patterns from
    attracting every cue. The first update compares known channels only.

    Parameters
    ----------
    small, steps, labels
        The patterns as `quantised` gives them, and their classes (N,) int16.
    beta
        (): inverse temperature over the mean squared length of patterns.
    updates
        ().
    """

    small: Tensor
    steps: Tensor
    labels: Tensor
    beta: Tensor
    updates: Tensor

    kind: ClassVar[str] = "hopfield"

    @classmethod
    def empty(cls, values: Values, size: int, beta: float, updates: int) -> HopfieldMemory:
        kind = torch.uint8 if values == "uint8" else torch.float16
        nothing, none = torch.zeros(0, size).to(kind), torch.zeros(0, dtype=torch.float16)
        return cls(nothing, none, torch.zeros(0, dtype=torch.int16), torch.tensor(beta), torch.tensor(updates))

    def learned(self, maps: Tensor, labels: Tensor, classes: int) -> HopfieldMemory:
        small, steps = quantised(maps.flatten(1), "uint8" if self.small.dtype == torch.uint8 else "float16")
        joined = torch.cat([self.labels, labels.to(torch.int16)])
        return HopfieldMemory(
            torch.cat([self.small, small]), torch.cat([self.steps, steps]), joined, self.beta, self.updates
        )

    def subset(self, rows: Tensor) -> HopfieldMemory:
        """Only the patterns at `rows`: how it forgets."""
        steps = self.steps[rows] if len(self.steps) else self.steps
        return HopfieldMemory(self.small[rows], steps, self.labels[rows], self.beta, self.updates)

    def patterns(self) -> Tensor:
        """(N, channels x places) float32."""
        return restored(self.small, self.steps)

    def _recalled(self, cues: Tensor, masks: Tensor, labels: Tensor | None, noise: float) -> Tensor:
        patterns = self.patterns()  # (P, F)
        beta = self.beta / patterns.square().sum(1).mean().clamp_min(1e-12)
        other = None if labels is None else labels[:, None] != self.labels[None, :]  # (N, P)
        state = cues.flatten(1)  # (N, F)
        known = masks[:, :, None].expand_as(cues).flatten(1).float()
        lengths = known @ patterns.square().T  # (N, P): squared, over what is known
        for _ in range(int(self.updates)):
            closeness = beta * (state @ patterns.T - lengths / 2)
            if other is not None:
                closeness = closeness.masked_fill(other, -torch.inf)
            state = closeness.softmax(1) @ patterns
            lengths = patterns.square().sum(1)
        return state.view_as(cues)

    def tensors(self) -> Mapping[str, Tensor]:
        return {"small": self.small, "steps": self.steps, "labels": self.labels} | {
            "beta": self.beta,
            "updates": self.updates,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> HopfieldMemory:
        return cls(*(tensors[name] for name in ("small", "steps", "labels", "beta", "updates")))


def recall_error(recalled: Tensor, maps: Tensor) -> float:
    """The squared error of recalled maps (N, channels, places) over the maps' squared distance from their mean.

    0 is perfect, 1 as good as always recalling the mean.
    """
    spread = (maps - maps.mean(0)).double().square().sum()
    return float((recalled - maps).double().square().sum() / spread.clamp_min(1e-12))
