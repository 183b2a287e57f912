"""Whether a model's stream of images is still what it has learned: a Welch test and a CUSUM over the novelty."""

from __future__ import annotations

import math
from typing import Any, Literal

from engram.recogniser import ALPHA
from engram.welch import Moments, welch

State = Literal["known", "drift", "new task suspected"]

STATES: tuple[State, ...] = ("known", "drift", "new task suspected")
"""From the best to the worst."""

BLOCK = 32
"""Images that the Welch test counts as one, by their mean: those of one request are alike, and would pass for more
evidence than they are if they were counted one by one (batch means, as in the analysis of simulations)."""

REFERENCE = 16 * BLOCK
"""The first images of a version, which the later ones are compared with."""

WINDOW = 8 * BLOCK
"""Images of one Welch test."""

MARGIN = 0.05
"""What the mean novelty may rise by: the mean of a real stream is never quite at rest."""

SIGNIFICANCE = 1e-3
"""Of one Welch test; two in a row decide."""

USUAL = 0.10
"""Share of unknown images taken for usual until the reference is complete: twice what tasks with few held-out images
show on images of their own."""

NEWCOMERS = 0.2
"""Share of the stream, beyond the usual, whose being unknown the CUSUM is tuned to find soonest."""

HEIGHT = 12.0
"""Of the CUSUM's alarm. A false one comes after exp(12) = 162,755 images or more on the average (Lorden 1971), as long
as images are independent and each is unknown with the usual probability or less; their novelty may follow any law."""

CAUTION = 3.0
"""Standard errors added to the share of unknown images in the reference before it is taken for the usual one."""


class Cusum:
    """Page's (1954) cumulative sum over unknown images, kept between 0 and `HEIGHT`.

    An image counts the log-likelihood ratio of "more are unknown than `usual`, by `NEWCOMERS`" against "as many as is
    usual", at most 1, so that a dozen strange images cannot raise an alarm that the ratio alone would: about 1 when the
    image is unknown, -0.2 when it is known, so that it rises in the long run where more than about 18 % are unknown.
    `raised` begins when the sum reaches `HEIGHT` and ends when it is back at 0.
    """

    def __init__(self) -> None:
        self.level = 0.0
        self.raised = False
        self.expect(USUAL)

    def expect(self, usual: float) -> None:
        """Count from now on against this share of unknown images."""
        self.usual = usual
        more = usual + NEWCOMERS * (1 - usual)
        self._unknown = min(1.0, math.log(more / usual))
        self._known = math.log((1 - more) / (1 - usual))

    def add(self, unknown: bool) -> None:
        """Count one more image."""
        self.level = min(HEIGHT, max(0.0, self.level + (self._unknown if unknown else self._known)))
        if self.level == (0.0 if self.raised else HEIGHT):
            self.raised = not self.raised


class StreamMonitor:
    """Watches the novelty of the images that one version of a model answers, in the order in which they come.

    It is made when a version goes live, knows nothing of other versions, and is thrown away with its version. A novelty
    is one minus the conformal p-value of the task that is answered. It need not be calibrated: the first `REFERENCE`
    images say what is usual for this version and stream. An image takes the same short time however many there were,
    and what is kept is a dozen numbers.

    The state is always one of three:

    `new task suspected`
        The CUSUM is raised: so many images are accepted by no task that chance, at what is usual, does not explain
        it. Usual is `USUAL` at first; from the end of the reference on it is the reference's own share, three standard
        errors up (Wilson 1927). It ends when the CUSUM is back at 0, some 60 images after the last unknown one. Such
        images may be of a task to learn, or broken; the novelty alone cannot tell these apart.
    `drift`
        Otherwise, when two Welch tests in a row said that the mean novelty of the newest `WINDOW` images is above the
        reference's by more than `MARGIN`. It ends when two in a row do not. The tests begin after the reference, on
        windows that do not overlap.
    `known`
        Otherwise, and at the beginning.

    An alarm of the CUSUM within the reference throws the reference away; it begins anew when the alarm ends, so that
    newcomers are not taken for usual. What raises no alarm there is.

    False alarms are rare where images come mixed, or in bunches no longer than `BLOCK`. A stream that brings one class
    after another for hundreds of images does drift, seen from any window shorter than its round. Each of several
    monitors that share a stream needs as many images as one.

    Source: RMN (Kaushik et al. 2021) for the Welch test, twice in a row; Page (1954) for the CUSUM.
    """

    def __init__(self) -> None:
        self.state: State = "known"
        self.samples = 0
        self.unknown = 0
        self.since = 0
        """How many images had come before the present state began."""
        self._cusum = Cusum()
        self._block = Moments()
        self._reference = Moments()
        """Of the blocks' means, as in the window."""
        self._reference_unknown = 0
        self._window = Moments()
        self._tested: tuple[float, float] | None = None
        self._drifting = False
        self._contrary = 0

    def add(self, novelty: float, known: bool | None = None) -> State:
        """Take in one more image; the state with it.

        Parameters
        ----------
        novelty
            0 to 1.
        known
            Whether some task accepts the image; read from the novelty when not given.
        """
        assert 0.0 <= novelty <= 1.0, "a novelty is one minus a p-value"
        unknown = novelty >= 1 - ALPHA if known is None else not known
        self.samples += 1
        self.unknown += unknown
        self._cusum.add(unknown)
        if not self._complete:
            self._learn(novelty, unknown)
        else:
            self._compare(novelty)
        state: State = "new task suspected" if self._cusum.raised else "drift" if self._drifting else "known"
        if state != self.state:
            self.state, self.since = state, self.samples - 1
        return state

    @property
    def _complete(self) -> bool:
        return self._reference.count * BLOCK == REFERENCE

    def _learn(self, novelty: float, unknown: bool) -> None:
        if self._cusum.raised:
            self._block, self._reference, self._reference_unknown = Moments(), Moments(), 0
            return
        self._reference_unknown += unknown
        self._gather(novelty, self._reference)
        if self._complete:
            self._cusum.expect(upper_share(self._reference_unknown, REFERENCE))

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
                "value": self._cusum.level,
                "threshold": HEIGHT,
                "usual": self._cusum.usual,
                "raised": self._cusum.raised,
            },
        }


def upper_share(count: int, of: int) -> float:
    """The upper end of Wilson's interval, `CAUTION` standard errors wide to each side, of a share `count` / `of`."""
    share, square = count / of, CAUTION**2
    middle = share + square / (2 * of)
    half = CAUTION * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return (middle + half) / (1 + square / of)
