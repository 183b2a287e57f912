"""Where a learner leaves what it has done, so that another process goes on from there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """All that was left of one run of learning."""

    about: Mapping[str, object]
    """What may be written as JSON: what was being learned, and how far it was."""
    pieces: Mapping[str, bytes]
    """Safetensors by name (digits and letters)."""


class Checkpoints(ABC):
    """The checkpoints of one run of learning; only the newest counts."""

    @abstractmethod
    def load(self) -> Checkpoint | None:
        """The newest one, whole and unharmed; None when there is none."""

    @abstractmethod
    def due(self, seconds: float) -> bool:
        """Whether to leave one now, after so many seconds of work since the last; asked at every step."""

    @abstractmethod
    def save(self, about: Mapping[str, object], pieces: Mapping[str, bytes], kept: Collection[str]) -> bool:
        """Leave one in the place of the last; False if that was not possible now, and the last one still stands.

        Parameters
        ----------
        pieces
            Those that are new, or not as they were.
        kept
            Names of those that count on, as this object was given them before.
        """
