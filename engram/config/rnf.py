"""Settings of Relevance-based Neural Freezing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from engram.config.base import MethodSettings

InitialWeights = Literal["he", "uniform"]


class RnfSettings(MethodSettings):
    """RNF (arXiv 2205.01929): one network, in which the units that are relevant to a task may hardly move any more.

    The network has the model's whole budget as its width from the first day. What orders its units is always relevance,
    whatever the option `score` of a task says. There is one search, whatever the option `rounds`, and recovery only
    with resistance: without it, what was taken away is put back.
    """

    elasticity: float = Field(default=0.0, ge=0, le=1)
    """How much of each update relevant units follow later: 0 freezes them, 1 is ordinary fine-tuning, which forgets."""
    resistance: bool = True
    """Whether units of earlier tasks never listen to later or free ones. With elasticity 0 old answers are then exact
    for ever; without it, as published, they drift with what free units learn."""
    tolerance: float | None = Field(default=None, ge=0, le=1)
    """Held-out accuracy, as a fraction, that the units deemed irrelevant may be worth together; by default as the
    option `tolerance` of each task says."""
    initial_weights: InitialWeights = "he"
    """`he`: normal, as of He et al. (arXiv 1502.01852). `uniform`: within 1 / sqrt(inputs), as PyTorch draws them and
    the paper with it; they are so much smaller that later tasks change them far more, and fine-tuning forgets more."""
    reference: int = Field(default=256, ge=2, le=100_000)
    """Held-out images, at most, whose relevance orders the units; the paper takes a small part of the test data."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"elasticity": 0.0, "resistance": False, "tolerance": 0.02},
        "paper_adience": {"elasticity": 0.0, "resistance": False, "tolerance": 0.05},
        "fine_tuning": {"elasticity": 1.0, "resistance": False, "tolerance": 0.02},
    }
