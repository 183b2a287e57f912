"""Checkpoints of a run of learning, and the interface of the stores that keep them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """The state of one run of learning, from which another process can go on."""

    about: Mapping[str, object]
    """A JSON object: what was being learned, and how far it was."""
    pieces: Mapping[str, bytes]
    """Safetensors by name (digits and letters)."""


class Checkpoints(ABC):
    """A store of the checkpoints of one run of learning, of which only the newest counts."""

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
