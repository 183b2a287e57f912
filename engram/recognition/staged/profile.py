"""What a staged model keeps of one task beside its network, and never changes again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from engram.checkpointing.tensors import FORMAT, LATER, LATEST, pack, unpack
from engram.errors import DamagedSnapshot
from engram.recognition.conformal import (
    NOISE_IMAGES,
    OF_DENSITY,
    OF_OTHERS,
    TELLING,
    CombinedScore,
    ConformalScores,
    level_of,
)
from engram.recognition.density import Density
from engram.recognition.heads.head_balance import HeadBalance
from engram.recognition.heads.head_share import EQUAL

_DENSITY = ("means", "directions", "variances", "rest", "centre", "scale", "quantiles")
_SCORES = ("centre", "scale", "values")
_BALANCE = ("offset", "log_prior")


@dataclass(frozen=True)
class StagedProfile:
    """A task's density over the commons, and everything that is calibrated by its own images."""

    task: str
    density: Density
    temperature: Tensor
    """(): divides the head's logits."""
    scored: int
    """How many images its p-values are counted among."""
    log_temperature: float
    """Log of what multiplies stage one's log-densities, as the task's images beside the first task's would have it."""
    evidence: float
    """How many images that was fitted on."""
    combined: CombinedScore | None = None
    """Of density and scatter together; None where the density alone judges."""
    noise: float | None = None
    """Share of pure noise that is called unknown, of the scale where it is least; None where it was not tried."""
    balance: HeadBalance | None = None
    head_share: float = EQUAL
    """Of the head beside stage one, in the log-probabilities of the task's classes."""
    relative: ConformalScores | None = None
    """Of distances relative to all classes, where these tell strangers, and the density only what is far."""

    @property
    def level(self) -> float | None:
        """The p-value up to which an image is unknown; None where there are too few scores to say."""
        return level_of(self.scored)

    @property
    def vouches(self) -> bool:
        """Whether an image that is not unknown to it is known: not where pure noise passes for the task's own."""
        return self.noise is None or self.noise >= TELLING

    def p_values(self, features: Tensor, unusual: Tensor) -> Tensor:
        """(B,): conformal p-values, from features (B, F) of all commons and what stage one finds `unusual` (B,)."""
        width = self.density.means.shape[1]  # of several commons, a density is over the first
        distances = self.density.distance(features if features.shape[1] == width else features[:, :width].contiguous())
        alone = self.density.p_value(distances)
        if self.relative is not None:
            return torch.minimum(self.relative.p_value(unusual) * OF_OTHERS, alone * OF_DENSITY).clamp_max(1)
        if self.combined is None:
            return alone
        both = self.combined.p_value_of_both(self.density.standardised(distances), unusual)
        # Either may call an image unknown, each half as often (Bonferroni).
        return (2 * torch.minimum(both, alone)).clamp_max(1)

    def tried(self, p_values: Tensor) -> StagedProfile:
        """Tried on pure noise of several scales, which got these p-values (scales * K,)."""
        if self.level is None:
            return self
        parts = torch.split(p_values, NOISE_IMAGES)
        return replace(self, noise=min(float((part <= self.level).double().mean()) for part in parts))

    def novelty(self) -> dict[str, object]:
        """What a learning report says of how strangers are told from the task's own images."""
        told: dict[str, object] = {"scores": self.scored, "level": self.level}
        return told if self.noise is None else {**told, "noise_unknown": self.noise}

    def dump(self) -> bytes:
        """The profile as bytes."""
        about: dict[str, object] = {
            "task": self.task,
            "scored": self.scored,
            "log_temperature": self.log_temperature,
            "evidence": self.evidence,
            "noise": self.noise,
        }
        tensors = {"temperature": self.temperature}
        tensors |= {f"density.{name}": getattr(self.density, name) for name in _DENSITY}
        if self.combined is not None:
            for kind, scores in (("scattered", self.combined.scattered), ("both", self.combined.both)):
                tensors |= {f"{kind}.{name}": getattr(scores, name) for name in _SCORES}
        if self.balance is not None:
            tensors |= {f"balance.{name}": getattr(self.balance, name) for name in _BALANCE}
        version = FORMAT
        if self.head_share != EQUAL:  # a release that knows equal shares alone would answer otherwise
            about["head_share"], version = self.head_share, LATER
        if self.relative is not None:
            tensors |= {f"relative.{name}": getattr(self.relative, name) for name in _SCORES}
            version = LATEST
        return pack("profile", about, tensors, version)

    @classmethod
    def load(cls, data: bytes) -> StagedProfile:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        about, tensors = unpack("profile", data)
        try:
            return _loaded(cast(Mapping[str, Any], about), tensors)
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            raise DamagedSnapshot(f"this profile lacks {error}") from error


def _loaded(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> StagedProfile:
    combined, balance, relative = None, None, None
    if "relative.values" in tensors:
        relative = ConformalScores(*(tensors[f"relative.{name}"] for name in _SCORES))
    if "both.values" in tensors:
        kinds = ([tensors[f"{kind}.{name}"] for name in _SCORES] for kind in ("scattered", "both"))
        combined = CombinedScore(*(ConformalScores(*kind) for kind in kinds))
    if "balance.offset" in tensors:
        balance = HeadBalance(*(tensors[f"balance.{name}"] for name in _BALANCE))
    return StagedProfile(
        str(about["task"]),
        Density(*(tensors[f"density.{name}"] for name in _DENSITY)),
        tensors["temperature"],
        int(about["scored"]),
        float(about["log_temperature"]),
        float(about["evidence"]),
        combined,
        None if about["noise"] is None else float(about["noise"]),
        balance,
        float(about.get("head_share", EQUAL)),
        relative,
    )
