"""Checkpoints in memory, and callbacks that kill learning at a chosen call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from engram.checkpointing.checkpoints import Checkpoint, Checkpoints


class Killed(BaseException):
    """Raised in place of a kill: no error of learning, and handled by nobody."""


class InMemory(Checkpoints):
    """Store of the newest checkpoint.

    Parameters
    ----------
    every
        Number of calls of `due` for each checkpoint; 0 means none at all.
    """

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.asked = 0
        self.saved = 0
        self.checkpoint: Checkpoint | None = None
        self._written: dict[str, bytes] = {}

    def load(self) -> Checkpoint | None:
        self._written = {}
        return self.checkpoint

    def due(self, seconds: float) -> bool:
        assert seconds >= 0
        self.asked += 1
        return self.every > 0 and self.asked % self.every == 0

    def save(self, about: Mapping[str, object], pieces: Mapping[str, bytes], kept: Collection[str]) -> bool:
        self._written = {name: self._written[name] for name in kept} | dict(pieces)
        self.checkpoint = Checkpoint(dict(about), dict(self._written))
        self.saved += 1
        return True


def dying(times: int) -> Callable[..., Any]:
    """A `cancel` or `progress` callback that raises `Killed` at its call number `times`."""
    left = times

    def ask(*_: object) -> bool:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed
        return False

    return ask
