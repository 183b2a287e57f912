"""What a memory answers, as far as it is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What a memory answers for one image."""

    task: str | None
    """None where the label does not tell."""
    label: str
    probability: float
    novelty: float | None = None
    """How unusual the image looks to what was learned; None where nothing is said about it."""
    known: bool | None = None
    """Whether the image was accepted as one of some task's own."""
    passes: int = 1
    """Forward passes that the answer took."""
