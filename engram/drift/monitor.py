"""Monitoring of a stream of images by their novelty: known, drift, or new task suspected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from engram.drift.cusum import HEIGHT, Cusum
from engram.drift.welch import Moments, welch
from engram.recognition.conformal import ALPHA

State = Literal["known", "drift", "new task suspected"]

STATES: tuple[State, ...] = ("known", "drift", "new task suspected")
"""From the best to the worst."""

BLOCK = 64
"""Images that the Welch test counts as one, by their mean: those of one request are alike, and would pass for more
evidence than they are if they were counted one by one (batch means, as in the analysis of simulations)."""

REFERENCE = 8 * BLOCK
"""The first images of a version, which the later ones are compared with."""

WINDOW = 6 * BLOCK
"""Images of one Welch test."""

MARGIN = 0.05
"""What the mean novelty may rise by: the mean of a real stream is never quite at rest."""

SIGNIFICANCE = 3e-3
"""Of one Welch test; two in a row decide."""

LEVELS = (ALPHA, 0.05)
"""A CUSUM for each counts the images whose p-value is no larger. The first are the unknown ones. A near stranger has
seldom so small a p-value, since few images were held out to say so, but mostly one below the second."""

CAUTION = 3.0
"""Standard errors added to a share of the reference before it is taken for a typical one."""


class StreamMonitor:
    """A monitor of the novelty of the images that one version of a model answers, in the order in which they come.

    It combines a Welch test of the mean novelty with two CUSUMs over unusual images.

    It is made when a version goes live, knows nothing of other versions, and is thrown away with its version. A novelty
    is one minus the conformal p-value of the task that is answered. It need not be calibrated: p-values of known images
    may be as small as the squares of calibrated ones (`CALIBRATION`), and smaller where the first `REFERENCE` images
    show it. An image takes the same short time however many there were, and what is kept is a score of numbers.

    The state is always one of three:

    `new task suspected`
        A CUSUM is raised: so many images have p-values so small that chance, at what is typical, does not explain it.
        Typical is what is `bearable`; from the end of the reference on, the reference's own share, three standard
        errors up (Wilson 1927), where that is more. It ends when both CUSUMs are back at 0, some 80 images after the
        last unusual one. Such images may be of a task to learn, or broken; novelty alone cannot distinguish these.
    `drift`
        Otherwise, when two Welch tests in a row said that the mean novelty of the newest `WINDOW` images is above the
        reference's by more than `MARGIN`. It ends when two in a row do not. The tests begin after the reference, on
        windows that do not overlap.
    `known`
        Otherwise, and at the beginning.

    An alarm of a CUSUM within the reference throws the reference away; it begins anew when the alarm ends, so that
    newcomers are not taken for typical. What raises no alarm there is.

    Images may come in any order without a false `new task suspected`, as long as what is typical holds for each class
    by itself. A false `drift` is rare where they come mixed, or in bunches no longer than two of `BLOCK`; a stream that
    brings one class after another for hundreds of images does drift, seen from any window shorter than its round. Each
    of several monitors that share a stream needs as many images as one.

    Source: RMN (Kaushik et al. 2021) for the Welch test, twice in a row; Page (1954) for the CUSUMs.
    """

    def __init__(self) -> None:
        self.state: State = "known"
        self.samples = 0
        self.unknown = 0
        self.since = 0
        """How many images had come before the present state began."""
        self._cusums = tuple(Cusum(level) for level in LEVELS)
        self._block = Moments()
        self._reference = Moments()
        """Of the blocks' means, as in the window."""
        self._reference_unusual = [0] * len(LEVELS)
        self._window = Moments()
        self._tested: tuple[float, float] | None = None
        self._drifting = False
        self._contrary = 0

    def add(self, novelty: float, known: bool | None = None) -> State:
        """Take in one more image, and return the state with it.

        Parameters
        ----------
        novelty
            0 to 1.
        known
            Whether some task accepts the image, which decides for the first of `LEVELS`; read from the novelty when not
            given.
        """
        assert 0.0 <= novelty <= 1.0, "a novelty is one minus a p-value"
        unknown = novelty >= 1 - ALPHA if known is None else not known
        self.samples += 1
        self.unknown += unknown
        unusual = [unknown, *(novelty >= 1 - level for level in LEVELS[1:])]
        for cusum, counts in zip(self._cusums, unusual, strict=True):
            cusum.add(counts)
        if not self._complete:
            self._learn(novelty, unusual)
        else:
            self._compare(novelty)
        state: State = "new task suspected" if self._raised else "drift" if self._drifting else "known"
        if state != self.state:
            self.state, self.since = state, self.samples - 1
        return state

    @property
    def _raised(self) -> bool:
        return any(cusum.raised for cusum in self._cusums)

    @property
    def _complete(self) -> bool:
        return self._reference.count * BLOCK == REFERENCE

    def _learn(self, novelty: float, unusual: Sequence[bool]) -> None:
        if self._raised:
            self._block, self._reference, self._reference_unusual = Moments(), Moments(), [0] * len(LEVELS)
            return
        self._reference_unusual = [sum(pair) for pair in zip(self._reference_unusual, unusual, strict=True)]
        self._gather(novelty, self._reference)
        if self._complete:
            for cusum, count in zip(self._cusums, self._reference_unusual, strict=True):
                cusum.expect(max(cusum.typical, upper_share(count, REFERENCE)))

    def _compare(self, novelty: float) -> None:
        self._gather(novelty, self._window)
        if self._window.count * BLOCK < WINDOW:
            return
        chance = welch(self._window, self._reference, MARGIN)
        self._tested = self._window.mean, chance
        self._window = Moments()
        self._contrary = self._contrary + 1 if (chance < SIGNIFICANCE) != self._drifting else 0
        if self._contrary == 2:
            self._drifting, self._contrary = not self._drifting, 0

    def _gather(self, novelty: float, blocks: Moments) -> None:
        self._block.add(novelty)
        if self._block.count == BLOCK:
            blocks.add(self._block.mean)
            self._block = Moments()

    def to_dict(self) -> dict[str, Any]:
        """All that is known of the stream, as JSON: the state, and what each detector has seen last."""
        mean, chance = self._tested or (None, None)
        foremost = max(self._cusums, key=lambda cusum: (cusum.raised, cusum.value))
        return {
            "state": self.state,
            "samples": self.samples,
            "unknown": self.unknown,
            "since": self.since,
            "welch": {
                "reference_samples": self._reference.count * BLOCK,
                "reference_mean": self._reference.mean if self._reference.count else None,
                "window_mean": mean,
                "p_value": chance,
                "drift": self._drifting,
            },
            "cusum": {
                "level": foremost.level,
                "value": foremost.value,
                "threshold": HEIGHT,
                "usual": foremost.typical,
                "raised": foremost.raised,
            },
        }


def upper_share(count: int, of: int) -> float:
    """The upper end of Wilson's interval, `CAUTION` standard errors wide to each side, of a share `count` / `of`."""
    share, square = count / of, CAUTION**2
    middle = share + square / (2 * of)
    half = CAUTION * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return (middle + half) / (1 + square / of)
