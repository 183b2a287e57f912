"""Progress reports and cancellation of learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from engram.checkpointing.journal import Journal
from engram.errors import Cancelled


@dataclass(frozen=True)
class Progress:
    """The progress of learning: the phase, how much of the whole is done, and what was last measured."""

    phase: str
    fraction: float
    """Of the whole task, from 0 to 1; never falls."""
    epoch: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    """On held-out images, from 0 to 1."""
    units: int | None = None
    """Units the task holds at the moment, over all layers."""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


SHARES = {"training": 0.55, "pruning": 0.15, "recovering": 0.15, "freezing": 0.01, "recognising": 0.14}
"""Roughly how the time of one task divides; what `Progress.fraction` is reckoned by."""


class Reporter:
    """Reporter of progress, which also asks whether to stop, and holds the journal of finished work.

    Parameters
    ----------
    progress
        Called with every `Progress`; may be None.
    cancel
        Asked before every step; may be None.
    journal
        Of a run that may be resumed; by default nothing is kept.
    """

    def __init__(
        self,
        progress: Callable[[Progress], None] | None = None,
        cancel: Callable[[], bool] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._progress = progress
        self._cancel = cancel
        self.journal = journal or Journal()

    def check(self) -> None:
        """Raise `Cancelled` if the caller asked to stop."""
        if self._cancel is not None and self._cancel():
            raise Cancelled("learning was stopped on request")

    def report(
        self,
        phase: str,
        within: float,
        *,
        epoch: int | None = None,
        loss: float | None = None,
        accuracy: float | None = None,
        units: int | None = None,
    ) -> None:
        """Report that so much (0 to 1) of a phase is done; what an earlier run has reported is not reported again."""
        self.check()
        before = 0.0
        for name, share in SHARES.items():
            if name == phase:
                before += share * min(1.0, within)
                break
            before += share
        self.journal.reached = reached = max(self.journal.reached, before)
        if self._progress is not None and not self.journal.replaying:
            self._progress(Progress(phase, reached, epoch, loss, accuracy, units))
