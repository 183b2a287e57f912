"""Totals over all tasks, of each of the commons that stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from engram.checkpointing.tensors import kind_of, pack, unpack
from engram.errors import DamagedSnapshot
from engram.recognition.staged.joined.joined_sums import JoinedSums
from engram.recognition.staged.totals import Totals

SEVERAL = "totals of several"


@dataclass(frozen=True)
class JoinedTotals:
    """The totals of each of the commons; of a single one mostly."""

    each: tuple[Totals, ...]

    @classmethod
    def empty(cls, widths: Sequence[int], steps: Sequence[float]) -> Self:
        return cls(tuple(Totals.empty(width, step) for width, step in zip(widths, steps, strict=True)))

    def plus(self, task: str, sums: JoinedSums) -> Self:
        """With one task more."""
        pairs = zip(self.each, sums.each, strict=True)
        return type(self)(tuple(totals.plus(task, own) for totals, own in pairs))

    def minus(self, task: str, sums: JoinedSums) -> Self:
        """Without a task whose sums these are."""
        pairs = zip(self.each, sums.each, strict=True)
        return type(self)(tuple(totals.minus(task, own) for totals, own in pairs))

    @property
    def sizes(self) -> list[int]:
        """Classes of each task."""
        return self.each[0].sizes

    def dump(self) -> bytes:
        """The totals as bytes."""
        if len(self.each) == 1:
            return self.each[0].dump()
        rows: list[object] = []
        tensors: dict[str, Tensor] = {}
        for number, totals in enumerate(self.each):
            about, parts = totals.parts()
            rows.append(about)
            tensors |= {f"{number}.{name}": tensor for name, tensor in parts.items()}
        return pack(SEVERAL, {"totals": rows}, tensors)

    @classmethod
    def load(cls, data: bytes) -> JoinedTotals:
        """The inverse of `dump`; raises DamagedSnapshot, UnsupportedFormat."""
        if kind_of(data) != SEVERAL:
            return cls((Totals.load(data),))
        about, tensors = unpack(SEVERAL, data)
        rows = about.get("totals")
        if not isinstance(rows, list) or not rows:
            raise DamagedSnapshot("totals of several commons lack all of them")
        found = []
        for number, row in enumerate(rows):
            prefix = f"{number}."
            own = {name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)}
            found.append(Totals.of_parts(row, own))
        return cls(tuple(found))
