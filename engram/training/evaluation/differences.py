"""Differences between the answers of two versions to the same images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from engram.recognition.predictions import Prediction

MOST_LISTED = 500
"""Images that are listed, those with another label or task first."""

_RANKS = ("label", "task", "known", "logits")


@dataclass(frozen=True)
class _Difference:
    rank: int
    """Of the gravest thing that differs."""
    path: str
    differs: tuple[str, ...]
    answers: tuple[tuple[str, str, float, bool | None], ...]
    """Task, label, probability, known."""


class Differences:
    """The images that two versions answer otherwise.

    Parameters
    ----------
    versions
        The numbers of both.
    most
        Images that are listed.
    """

    def __init__(self, versions: Sequence[int], most: int = MOST_LISTED) -> None:
        self._versions = tuple(versions)
        self._most = most
        self._count = 0
        self._kinds: Counter[str] = Counter()
        self._gravest: list[_Difference] = []

    def add(
        self,
        path: str,
        answers: Sequence[Prediction],
        logits: Sequence[Tensor | None],
        learned: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        """Compare both answers to the image at `path`, and the logits (classes,) of the task where both name one.

        Parameters
        ----------
        learned
            Task and label that each answer was learned under, where these may be shown by other names: what differs in
            a name alone is the same answer.
        """
        given = learned or [(answer.task, answer.label) for answer in answers]
        seen = [(label, task, answer.known) for (task, label), answer in zip(given, answers, strict=True)]
        differs = [name for name, one, other in zip(_RANKS[:3], *seen, strict=True) if one != other]
        if "task" not in differs and not _same(*logits):
            differs.append("logits")
        if not differs:
            return
        self._count += 1
        self._kinds.update(differs)
        told = tuple((answer.task, answer.label, answer.probability, answer.known) for answer in answers)
        self._gravest.append(_Difference(_RANKS.index(differs[0]), path, tuple(differs), told))
        if len(self._gravest) > 2 * self._most:
            self._cut()

    def to_dict(self) -> dict[str, object]:
        """As JSON: how many differ and in what, and the images that are listed."""
        self._cut()
        return {
            "differences": self._count,
            "by": {name: self._kinds[name] for name in _RANKS},
            "listed": [self._told(one) for one in self._gravest],
            "cut": self._count > len(self._gravest),
        }

    def _cut(self) -> None:
        self._gravest = sorted(self._gravest, key=lambda one: (one.rank, one.path))[: self._most]

    def _told(self, one: _Difference) -> dict[str, object]:
        answers = [
            {"version": version, "task": task, "label": label, "probability": probability, "known": known}
            for version, (task, label, probability, known) in zip(self._versions, one.answers, strict=True)
        ]
        return {"image": one.path, "differs": list(one.differs), "answers": answers}


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether logits are the same bytes."""
    if one is None or other is None:
        return one is other
    return one.numpy().tobytes() == other.numpy().tobytes()
