"""What learning one task did and cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class LearningReport:
    """What learning one task did and cost; everything in it can be written as JSON."""

    task: str
    classes: dict[str, int]
    """Images of each class that were learned from."""
    held_out: int
    options: dict[str, object]
    candidate: dict[str, int] = field(default_factory=dict)
    """Units tried in each layer."""
    units: dict[str, int] = field(default_factory=dict)
    """Units kept in each layer."""
    accuracy: dict[str, float] = field(default_factory=dict)
    """Held-out accuracy with the task given: `trained`, before pruning, and `kept`, of all that remains; with `eidetic`
    also `network`, what remains before the head reads the commons."""
    recognised: float = 1.0
    """Share of the held-out images that the recogniser gives to this task, among all tasks so far."""
    answered: float = 0.0
    """Held-out accuracy with no task given."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each phase."""
    details: dict[str, object] = field(default_factory=dict)
    """What only this method has to tell."""

    def to_dict(self) -> dict[str, object]:
        return dict(vars(self))

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time of what is done within to a phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = round(self.seconds.get(phase, 0.0) + time.monotonic() - started, 3)
