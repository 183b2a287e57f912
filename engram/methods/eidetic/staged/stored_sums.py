"""Stored sums of a staged model: totals, and of each task its sums, pairs and detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from engram.checkpointing.pieces import Piece, bytes_of
from engram.checkpointing.tensors import kind_of, pack, unpack
from engram.errors import DamagedSnapshot
from engram.nn.commons import Commons
from engram.recognition.staged.exact_sums import ExactSums, load_pairs, pairs_of
from engram.recognition.staged.joined.joined_sums import SEVERAL as SEVERAL_SUMS
from engram.recognition.staged.joined.joined_sums import JoinedSums
from engram.recognition.staged.joined.joined_totals import SEVERAL as SEVERAL_TOTALS
from engram.recognition.staged.joined.joined_totals import JoinedTotals
from engram.recognition.staged.totals import Totals

_PARTS = 3
"""Pieces of each task: sums over the commons, sums over what detectors read, the totals of its own detector."""

_NO_DETECTOR = "no detector"

_TOTALS = ("totals", SEVERAL_TOTALS)

_KINDS = (("exact sums", SEVERAL_SUMS), ("pairs",), ("totals", _NO_DETECTOR))
"""What each of them may be."""


@dataclass(frozen=True)
class StoredSums:
    """Stored sums of all tasks, each piece read when it is needed.

    Learning a task reads the totals, the first task's sums, and the totals of the few detectors that it gives negatives
    to; what else there is serves to take a task away again.
    """

    names: tuple[str, ...]
    """Of the tasks, in order."""
    pieces: tuple[bytes | Piece, ...]
    """The totals, then of each task its `_PARTS`."""

    @classmethod
    def of(cls, names: Sequence[str], pieces: Sequence[bytes | Piece]) -> Self:
        """From what was stored; raises DamagedSnapshot, UnsupportedFormat for what is not these tasks' sums."""
        expected = 1 + _PARTS * len(names) if names else 0
        if len(pieces) != expected:
            raise DamagedSnapshot(f"{len(names)} tasks have {expected} pieces of sums, not {len(pieces)}")
        for number, piece in enumerate(pieces):
            kinds = _KINDS[(number - 1) % _PARTS] if number else _TOTALS
            # What is no bytes yet is read when it is needed, and judged then.
            if isinstance(piece, bytes) and (found := kind_of(piece)) not in kinds:
                raise DamagedSnapshot(f"expected sums of the kind {' or '.join(kinds)} and found a {found} file")
        return cls(tuple(names), tuple(pieces))

    def totals(self, commons: Commons) -> JoinedTotals:
        """The totals over all tasks."""
        if not self.pieces:
            return JoinedTotals.empty(commons.widths, commons.steps)
        return JoinedTotals.load(bytes_of(self.pieces[0]))

    def first(self) -> tuple[str, JoinedSums]:
        """Name and sums of the first task."""
        return self.names[0], self.sums(self.names[0])

    def sums(self, task: str) -> JoinedSums:
        """A task's sums over the commons."""
        return JoinedSums.load(self._piece(task, 0))

    def pairs(self, task: str) -> dict[str, ExactSums]:
        """By the names of detectors a task's sums over what each reads."""
        about, tensors = unpack("pairs", self._piece(task, 1))
        return load_pairs(about, tensors)

    def detector(self, task: str) -> Totals:
        """The totals of a task's detector."""
        return Totals.load(self._piece(task, 2))

    def _piece(self, task: str, part: int) -> bytes:
        return bytes_of(self._own(task)[part])

    def plus(
        self,
        totals: JoinedTotals,
        task: str,
        sums: JoinedSums,
        pairs: Mapping[str, ExactSums],
        detectors: Mapping[str, Totals],
    ) -> StoredSums:
        """With a task more; `detectors` are those whose totals have changed."""
        pieces = list(self.pieces[1:])
        for number, name in enumerate(self.names):
            if name in detectors:
                pieces[_PARTS * number + 2] = detectors[name].dump()
        own = detectors[task].dump() if task in detectors else pack(_NO_DETECTOR, {"task": task}, {})
        added = (sums.dump({"task": task}), pack("pairs", *pairs_of(pairs)), own)
        return StoredSums((*self.names, task), (totals.dump(), *pieces, *added))

    def minus(self, task: str, totals: JoinedTotals, detectors: Mapping[str, Totals]) -> StoredSums:
        """Without a task; `detectors` are those that it had given negatives, without these."""
        pieces: list[bytes | Piece] = [totals.dump()]
        for name in self.names:
            own = list(self._own(name))
            # Later tasks have nothing to keep of what a detector read that there is no more.
            pairs = self.pairs(name)
            if task in pairs:
                own[1] = pack("pairs", *pairs_of({other: one for other, one in pairs.items() if other != task}))
            if name in detectors:
                own[2] = detectors[name].dump()
            pieces += own if name != task else []
        return StoredSums(tuple(name for name in self.names if name != task), tuple(pieces))

    def _own(self, task: str) -> tuple[bytes | Piece, ...]:
        start = 1 + _PARTS * self.names.index(task)
        return self.pieces[start : start + _PARTS]
