"""Journal of the finished work of one run of learning, from which a broken run is resumed bit for bit."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from engram.checkpointing import pytree
from engram.checkpointing.checkpoints import Checkpoint, Checkpoints
from engram.checkpointing.curves import CurvePoint, EpochFigures
from engram.checkpointing.pytree import Tree
from engram.errors import SnapshotError

T = TypeVar("T")

log = logging.getLogger("engram.learner")

_KIND = "checkpoint"
_STANDING = "standing"


class Journal:
    """The entries of one run, each a piece of work, in the order in which they come.

    Learning the same thing twice goes through the same entries. A run that is resumed therefore runs the same code from
    its beginning: for an entry that an earlier run has finished, the journal gives the outcome instead of having the
    work done again, and the entry that was broken off goes on from where it stood. What lies between entries is cheap,
    and is done again.

    Parameters
    ----------
    checkpoints
        Where to leave, and to find, what was done; None to keep nothing.
    subject
        JSON of what is learned, from what, how and where: a checkpoint of anything else is ignored.
    """

    def __init__(self, checkpoints: Checkpoints | None = None, subject: Mapping[str, object] | None = None) -> None:
        self._checkpoints = checkpoints
        self._subject = {"code": _code(), **json.loads(json.dumps(subject or {}))} if checkpoints else {}
        self._earlier: dict[str, Any] = {}
        """Entries that an earlier run has finished and this one has not come to yet."""
        self._standing: dict[str, Any] = {}
        """The state of the entry that an earlier run had begun."""
        self._unsaved: dict[str, Any] = {}
        """Finished entries that are not yet in a checkpoint."""
        self._saved: list[str] = []
        """Names of the pieces that hold finished entries."""
        self._count = 0
        self._open: JournalEntry | None = None
        self._taken_over = 0.0
        self.resumed = 0
        """How many runs broke off before this one went on with their work."""
        self.reached = 0.0
        """The share of the whole that was done last."""
        self.replaying = False
        """Whether all that was asked for so far was there already."""
        self.curve: list[CurvePoint] = []
        """What was drawn so far, in order."""
        if checkpoints is not None:
            self._read(checkpoints.load())
        self._since = time.monotonic()

    def clock(self) -> float:
        """Seconds since some moment, those that earlier runs spent on what was taken over from them included."""
        return time.monotonic() + self._taken_over

    def draw(self, phase: str, epochs: Iterable[EpochFigures]) -> None:
        """Add the epochs of a run of a phase to the curve."""
        self.curve += [CurvePoint(phase, *figures) for figures in epochs]

    def entry(self, name: str) -> JournalEntry:
        """The next entry, which must be finished before another begins."""
        assert self._open is None, f"{name} begins before {self._open and self._open.key} is finished"
        key = f"{self._count:05d} {name}"
        self._count += 1
        found, standing = self._earlier.pop(key, None), None
        if found is not None:
            self._taken_over += found["seconds"]
        else:
            self.replaying = False
            if self._standing.get("key") == key:
                standing, self._taken_over = self._standing["state"], self._taken_over + self._standing["seconds"]
                self._standing = {}
        begun = self.clock() - (found or {}).get("seconds", 0.0)
        entry = JournalEntry(self, key, begun, None if found is None else found["outcome"], standing)
        self._open = entry if found is None else None
        return entry

    def once(self, name: str, work: Callable[[], T], generator: torch.Generator | None = None) -> T:
        """The outcome of `work`, a tree, which an earlier run may have already.

        Parameters
        ----------
        generator
            What `work` draws from; it stands afterwards where the work has left it.
        """
        entry = self.entry(name)
        if entry.outcome is None:
            value = work()
            entry.finish({"value": value, "generator": None if generator is None else generator.get_state()})
        if generator is not None:
            generator.set_state(entry.outcome["generator"])
        return cast(T, entry.outcome["value"])

    def _read(self, found: Checkpoint | None) -> None:
        if found is None:
            return
        if found.about.get("subject") != self._subject:
            log.warning("a checkpoint is ignored: it is of other data, options, code or another machine")
            return
        try:
            parts = {name: pytree.load(_KIND, data) for name, data in found.pieces.items()}
            self._standing = parts.pop(_STANDING, {})
            for part in parts.values():
                self._earlier.update(part)
            self.reached, self.resumed = float(str(found.about["reached"])), int(str(found.about["resumed"])) + 1
        except (SnapshotError, KeyError, ValueError) as error:
            log.warning("a checkpoint is ignored: %s", error)
            self._earlier, self._standing = {}, {}
            return
        # It has to be in the checkpoints of this run as well, which stand alone.
        self._unsaved = dict(self._earlier)
        self.replaying = True
        log.info("learning goes on from %s", self._standing.get("key") or f"after {max(self._earlier, default='')}")

    def _finished(self, entry: JournalEntry, outcome: Tree) -> None:
        assert self._open is entry, "an entry is finished once"
        self._open = None
        if self._checkpoints is not None:
            self._unsaved[entry.key] = {"seconds": self.clock() - entry.begun, "outcome": outcome}
            if self._checkpoints.due(time.monotonic() - self._since):
                self._save({})

    def _paused(self, entry: JournalEntry, state: Callable[[], Tree]) -> None:
        if self._checkpoints is not None and self._checkpoints.due(time.monotonic() - self._since):
            seconds = self.clock() - entry.begun
            self._save({_STANDING: pytree.dump(_KIND, {"key": entry.key, "seconds": seconds, "state": state()})})

    def _save(self, pieces: dict[str, bytes]) -> None:
        assert self._checkpoints is not None, "only a journal with checkpoints has anything to save"
        finished = [f"{len(self._saved):05d}"] if self._unsaved else []
        for name in finished:
            pieces[name] = pytree.dump(_KIND, self._unsaved)
        about = {"subject": self._subject, "reached": self.reached, "resumed": self.resumed}
        if self._checkpoints.save(about, pieces, self._saved):
            self._saved += finished
            self._unsaved = {}
        self._since = time.monotonic()


class JournalEntry:
    """One piece of work of a run, done once however often the run is broken off.

    Parameters
    ----------
    begun
        When it began, by the journal's clock.
    outcome
        What it gave, if it is finished.
    standing
        What an earlier run gave to `pause` last; None to begin at the beginning.
    """

    def __init__(self, journal: Journal, key: str, begun: float, outcome: Tree, standing: Tree) -> None:
        self._journal = journal
        self.key = key
        self.begun = begun
        self.outcome = outcome
        self.standing = standing

    def pause(self, state: Callable[[], Tree]) -> None:
        """Keep `state()`, with which alone the work can go on from here, if a checkpoint is due."""
        self._journal._paused(self, state)

    def finish(self, outcome: Tree) -> None:
        """Note that the work is done, with its outcome."""
        self.outcome = pytree.contiguous(outcome)
        self._journal._finished(self, self.outcome)


@cache
def _code() -> str:
    """SHA-256 of the learner's own source: other code would not have done the same, bit for bit."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
