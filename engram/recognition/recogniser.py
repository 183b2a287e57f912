"""The task recogniser: fused ridge scores, densities and detectors over the features of one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from engram.recognition.calibration import fitted
from engram.recognition.class_scatter import ClassScatter
from engram.recognition.conformal import ALPHA, NOISE_IMAGES, TELLING, CombinedScore, level_of
from engram.recognition.density import Density
from engram.recognition.heads.head_balance import HeadBalance

SHARPNESS = 10.0
"""Ridge scores estimate probabilities around 0 and 1; this is where their softmax starts from."""

CAUTION = 0.1
"""Where the weight of the densities starts from."""

TRUST = 3.0
"""Where the sharpness of the detectors' scores starts from."""


PARTS = ("ridge", "densities", "chain")
"""What tasks are recognised by."""


@dataclass(frozen=True)
class TaskProfile:
    """The profile of one task: its density, the calibration of its head, its detector."""

    task: str
    classes: int
    density: Density
    temperature: Tensor
    """(): divides the head's logits so that their softmax is calibrated on held-out images."""
    detector: Tensor | None = None
    """(F_t + 1, classes of this task and all later ones): ridge regression over the task's own prefix and a constant.
    Later tasks' images are real negatives: the prefix they are seen through never changes."""
    over: Literal["commons", "features"] = "features"
    """What the density is over: the commons, or the task's own features."""
    combined: CombinedScore | None = None
    """The combined score of density and scatter; None where the density alone judges."""
    scored: int | None = None
    """How many images of the task its p-values are counted among; None for models of the first recipe, where they are
    as many as were held out and always say something."""
    noise: float | None = None
    """Share of pure noise that is called unknown, of the scale where it is least; None where it was not tried."""
    balance: HeadBalance | None = None
    """Where the task has classes of unequal size, what decides between them; None where the logits alone do."""

    @property
    def level(self) -> float | None:
        """The p-value up to which an image is unknown; None where there are too few scores to say."""
        return ALPHA if self.scored is None else level_of(self.scored)

    @property
    def vouches(self) -> bool:
        """Whether an image that is not unknown is known: not where pure noise passes for the task's own as well."""
        return self.noise is None or self.noise >= TELLING

    def tried(self, p_values: Tensor) -> TaskProfile:
        """Tried on pure noise of several scales, which got these p-values (scales * K,)."""
        level = level_of(self.scored or 0)
        if level is None:
            return self
        parts = torch.split(p_values, NOISE_IMAGES)
        return replace(self, noise=min(float((part <= level).double().mean()) for part in parts))

    def novelty(self, held_out: int) -> dict[str, object]:
        """What a learning report says of how strangers are told from the task's own images."""
        scores = held_out if self.scored is None else self.scored
        told: dict[str, object] = {"scores": scores, "level": self.level}
        return told if self.noise is None else {**told, "noise_unknown": self.noise}


def balances_of(profiles: Sequence[TaskProfile]) -> tuple[HeadBalance | None, ...] | None:
    """For each task what decides between classes of unequal size; None where no task has any."""
    found = tuple(profile.balance for profile in profiles)
    return found if any(one is not None for one in found) else None


@dataclass(frozen=True)
class Verdict:
    """Task probabilities and conformal p-values of B images."""

    log_tasks: Tensor
    """(B, T): log of the calibrated probability of each task."""
    p_values: Tensor
    """(B, T): each task's conformal p-value."""
    levels: tuple[float | None, ...]
    """For each task the p-value up to which an image is unknown to it; None where that cannot be told."""
    vouched: tuple[bool, ...]
    """For each task whether an image that is not unknown to it is known."""


@dataclass(frozen=True)
class Recogniser:
    """A recogniser that fuses three kinds of evidence into calibrated task probabilities.

    - ridge: class scores over the commons; for task t the logsumexp over its classes of sharpness x score,
    - densities: less caution x the standardised log distance of the image from the task's own,
    - chain: each task's detector tells it from all later ones, p_t, over the task's own prefix; task t has the log of
      p_t and of all earlier 1 - p_j.

    The weights are shared by all tasks, and are the mean over the tasks learned so far of what fitted their held-out
    images best, weighted by how many there were.
    """

    weights: Tensor
    """(F + 1, classes): ridge regression onto one-hot labels, over the commons and a constant."""
    profiles: tuple[TaskProfile, ...]
    sharpness: Tensor
    """()."""
    caution: Tensor
    """()."""
    trust: Tensor
    """(): the sharpness of the detectors' scores."""
    evidence: Tensor
    """(): held-out images that the three were fitted on."""
    parts: tuple[str, ...] = PARTS
    """Which of `PARTS` count."""
    scatter: ClassScatter | None = None
    """Of the ridge's scores; None in models that an earlier version saved, until they learn a task more."""

    @classmethod
    def empty(cls, features: int, parts: Sequence[str] = PARTS) -> Recogniser:
        sharpness, caution, trust = torch.tensor(SHARPNESS), torch.tensor(CAUTION), torch.tensor(TRUST)
        return cls(torch.zeros(features + 1, 0), (), sharpness, caution, trust, torch.tensor(0.0), tuple(parts))

    @property
    def balances(self) -> tuple[HeadBalance | None, ...] | None:
        """For each task what decides between classes of unequal size; None where no task has any."""
        return balances_of(self.profiles)

    def class_scores(self, commons: Tensor) -> Tensor:
        """Ridge scores (B, classes of all tasks) from features of the commons (B, F)."""
        return commons @ self.weights[:-1] + self.weights[-1]

    def distances(self, features: Sequence[Tensor], common: Tensor | None = None) -> Tensor:
        """(B, T): each task's squared distance.

        Parameters
        ----------
        features
            (B, F_t) of each task.
        common
            (B, F) of the commons, which densities over them need.
        """
        columns = []
        for profile, own in zip(self.profiles, features, strict=True):
            assert profile.over == "features" or common is not None, "a density over the commons is asked with them"
            columns.append(profile.density.distance(own if profile.over == "features" or common is None else common))
        return torch.stack(columns, 1)

    def detections(self, prefixes: Sequence[Tensor]) -> list[Tensor]:
        """For each task but the last its detector's scores, (B, classes of this task and all later ones).

        Nothing where a task has no detector, its sums being older than detectors: a chain with a gap says nothing.
        """
        detectors = [profile.detector for profile in self.profiles[:-1]]
        pairs = list(zip(detectors, prefixes, strict=False))
        if any(detector is None for detector in detectors):
            return []
        return [features @ detector[:-1] + detector[-1] for detector, features in pairs if detector is not None]

    def evidence_of(self, features: Sequence[Tensor], common: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Class scores, distances and detections, from each task's features (B, F_t) and the commons' (B, F)."""
        return self.class_scores(common), self.distances(features, common), self.detections(features)

    def log_probabilities(self, scores: Tensor, distances: Tensor, detections: Sequence[Tensor] = ()) -> Tensor:
        """(B, T): log of the calibrated probability of each task."""
        fused = self._fused(scores, distances, detections, torch.stack([self.sharpness, self.caution, self.trust]))
        return torch.log_softmax(fused, 1)

    def assess(self, features: Sequence[Tensor], common: Tensor, chained: bool = False) -> Verdict:
        """All of it, from each task's features (B, F_t) and the commons' (B, F); with what the detectors see in each
        task's features only if `chained`."""
        scores, distances = self.class_scores(common), self.distances(features, common)
        detections = self.detections(features) if chained else []
        log_tasks = self.log_probabilities(scores, distances, detections)
        return Verdict(log_tasks, self.p_values(distances, scores), self.levels, self.vouched)

    @property
    def levels(self) -> tuple[float | None, ...]:
        """For each task the p-value up to which an image is unknown to it; None where that cannot be told."""
        return tuple(profile.level for profile in self.profiles)

    @property
    def vouched(self) -> tuple[bool, ...]:
        """For each task whether an image that is not unknown to it is known."""
        return tuple(profile.vouches for profile in self.profiles)

    def p_values(self, distances: Tensor, scores: Tensor) -> Tensor:
        """(B, T): each task's conformal p-value, from `distances` and `class_scores`.

        By density and scatter together, where the task was learned with both, else by the density alone.
        """
        scattered = self.scattered(scores)
        columns = []
        for number, profile in enumerate(self.profiles):
            distance, alone = distances[:, number], profile.density.p_value(distances[:, number])
            if scattered is not None and profile.combined is not None:
                alone = profile.combined.p_value(profile.density.standardised(distance), scattered[:, number], alone)
            columns.append(alone)
        return torch.stack(columns, 1)

    def scattered(self, scores: Tensor) -> Tensor | None:
        """(B, T): how far class scores scatter from those of each task; None without a scatter."""
        if self.scatter is None:
            return None
        return self.scatter.unusual(scores, [profile.classes for profile in self.profiles])

    def with_combined_score(self, scores: Tensor, distances: Tensor) -> Recogniser:
        """The recogniser with the combined score of its newest task.

        Parameters
        ----------
        scores
            (M, classes of all tasks): class scores of images of that task that were not learned from.
        distances
            (M,): their squared distances.
        """
        scattered, newest = self.scattered(scores), self.profiles[-1]
        if scattered is None:
            return self
        combined = CombinedScore.of(newest.density.standardised(distances), scattered[:, -1])
        return replace(self, profiles=(*self.profiles[:-1], replace(newest, combined=combined)))

    def tried(self, noise: Tensor) -> Recogniser:
        """The recogniser whose newest task is tried on pure noise, by its features (K, F) of the commons."""
        distances = self.distances([noise] * len(self.profiles), noise)
        newest = self.profiles[-1].tried(self.p_values(distances, self.class_scores(noise))[:, -1])
        return replace(self, profiles=(*self.profiles[:-1], newest))

    def _fused(self, scores: Tensor, distances: Tensor, detections: Sequence[Tensor], weights: Tensor) -> Tensor:
        sharpness, caution, trust = weights
        fused = torch.zeros_like(distances)  # (B, T)
        if "ridge" in self.parts:
            parts = torch.split(sharpness * scores, [profile.classes for profile in self.profiles], 1)
            fused = fused + torch.stack([part.logsumexp(1) for part in parts], 1)
        if "densities" in self.parts:
            columns = zip(self.profiles, distances.unbind(1), strict=True)
            unusual = torch.stack([profile.density.standardised(column) for profile, column in columns], 1)
            fused = fused - caution * unusual.clamp(-8.0, 8.0)
        if "chain" in self.parts and detections:
            fused = fused + self._chain(detections, trust)
        return fused

    def _chain(self, detections: Sequence[Tensor], trust: Tensor) -> Tensor:
        """(B, T): the log of each task's probability, detector after detector."""
        passed = torch.zeros(len(detections[0]), dtype=detections[0].dtype, device=detections[0].device)
        columns = []
        for profile, scores in zip(self.profiles, detections, strict=False):
            sharp = trust * scores
            odds = sharp[:, : profile.classes].logsumexp(1) - sharp[:, profile.classes :].logsumexp(1)  # (B,)
            columns.append(passed + logsigmoid(odds))
            passed = passed + logsigmoid(-odds)
        return torch.stack([*columns, passed], 1)

    def calibrated(self, scores: Tensor, distances: Tensor, detections: Sequence[Tensor] = ()) -> Recogniser:
        """The recogniser with its weights fitted to held-out images (M of them) of its newest task.

        Maximum likelihood of the right task, started from, and averaged with, what earlier tasks gave.
        """
        count = len(scores)
        if len(self.profiles) < 2:
            return self
        right = torch.full((count,), len(self.profiles) - 1)
        start = torch.stack([self.sharpness, self.caution, self.trust]).double().log()
        found = [one.double() for one in detections]

        def loss(free: Tensor) -> Tensor:
            return cross_entropy(self._fused(scores.double(), distances.double(), found, free.exp()), right)

        weights = fitted(start, loss, count).float()
        total = self.evidence + count
        sharpness, caution, trust = ((start.float() * self.evidence + weights * count) / total).exp()
        return replace(self, sharpness=sharpness, caution=caution, trust=trust, evidence=total)
