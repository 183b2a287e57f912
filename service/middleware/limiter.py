"""Limit on how much of something may be in use at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors.exceptions import Overloaded
from service.metrics import Metrics


def full(what: str, taken: int, size: int, retry_after: int) -> Overloaded:
    """The error of one more when `taken` of `size` are in use."""
    return Overloaded(f"There is no room for more {what} ({taken} of {size}).", retry_after)


class Limiter:
    """A bounded amount of `what`, which refuses at once when too little of it is left. For one event loop.

    Parameters
    ----------
    kind
        Under which the refusals are counted.
    what
        For the person who is refused: "event streams".
    size
        How much there is.
    """

    def __init__(self, metrics: Metrics, kind: str, what: str, size: int, retry_after: int) -> None:
        self._metrics = metrics
        self._kind = kind
        self._what = what
        self._size = size
        self._retry_after = retry_after
        self.taken = 0

    def take(self, amount: int = 1) -> None:
        """Take some; raises Overloaded."""
        if self.taken + amount > self._size:
            raise self.refusal()
        self.taken += amount

    def give(self, amount: int = 1) -> None:
        """Give back what was taken."""
        self.taken -= amount

    @contextmanager
    def held(self, amount: int = 1) -> Iterator[None]:
        """A block in which some is taken; raises Overloaded."""
        self.take(amount)
        try:
            yield
        finally:
            self.give(amount)

    def refusal(self) -> Overloaded:
        """The error of one more than there is left; counted."""
        self._metrics.refused.labels(self._kind).inc()
        return full(self._what, self.taken, self._size, self._retry_after)
