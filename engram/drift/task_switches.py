"""Detection of unannounced task switches in a stream, by a Welch test on surprise."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from engram.drift.welch import Moments, welch


def surprise(logits: Tensor, labels: Tensor | None = None) -> Tensor:
    """The surprise of a map at each image, from 0 to 1: logits (B, classes) -> (B,).

    With labels (B,), the probability that is not given to the right class, 1 - exp(-cross-entropy): a loss that single
    images cannot blow up. Without, 1 / (1 + sum of exp(logits)): the energy of a map that answers noise with 0, and
    its own kind with large logits.
    """
    if labels is None:
        return torch.sigmoid(-logits.logsumexp(1))
    return 1.0 - torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]


class TaskSwitchDetector:
    """A detector of task switches: a one-sided Welch test of the newest window of surprises against those before it.

    A window that lies above its reference is suspicious; so many in a row are a switch. Suspicious windows never become
    part of the reference. A task that is being learned surprises less and less, so that learning raises no alarm.

    Parameters
    ----------
    window
        Images in a window.
    reference
        Windows compared with.
    alpha
        The p-value under which a window is suspicious.
    margin
        How much the mean surprise has to rise at least.
    in_a_row
        Suspicious windows that make a switch.
    """

    def __init__(
        self, window: int = 256, reference: int = 4, alpha: float = 1e-3, margin: float = 0.03, in_a_row: int = 2
    ) -> None:
        self.window, self.alpha, self.margin, self.in_a_row = window, alpha, margin, in_a_row
        self._reference: deque[list[float]] = deque(maxlen=reference)
        self.suspicions = 0
        """Suspicious windows so far, one after another up to the newest."""

    def judge(self, newest: Iterable[float]) -> bool:
        """Take in one window; whether the task has switched with the oldest of the suspicious windows."""
        values = list(newest)
        if len(self._reference) == self._reference.maxlen:
            p_value = welch(_moments([values]), _moments(self._reference), self.margin)
            if p_value < self.alpha:
                self.suspicions += 1
                return self.suspicions >= self.in_a_row
        self.suspicions = 0
        self._reference.append(values)
        return False

    def reset(self) -> None:
        """Begin again, for another task."""
        self._reference.clear()
        self.suspicions = 0


def _moments(windows: Iterable[Iterable[float]]) -> Moments:
    found = Moments()
    for values in windows:
        for value in values:
            found.add(value)
    return found
