"""What one run of learning has done so far, stretch by stretch."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from engram.checkpointing import pytree
from engram.checkpointing.checkpoints import Checkpoint, Checkpoints
from engram.checkpointing.pytree import Tree
from engram.errors import SnapshotError

T = TypeVar("T")

log = logging.getLogger("engram.learner")

_KIND = "checkpoint"
_STANDING = "standing"


class Journal:
    """The stretches of one run, in the order in which they come.

    Learning the same thing twice goes through the same stretches. So whoever resumes runs the same code from its
    beginning: a stretch that an earlier run has finished hands out what it gave instead of working, and the one that
    was broken off goes on from where it stood. What lies between stretches is cheap, and is done again.

    Parameters
    ----------
    checkpoints
        Where to leave, and to find, what was done; None to keep nothing.
    subject
        JSON that tells what is learned, from what, how and where: a checkpoint of anything else is ignored.
    """

    def __init__(self, checkpoints: Checkpoints | None = None, subject: Mapping[str, object] | None = None) -> None:
        self._checkpoints = checkpoints
        self._subject = {"code": _code(), **json.loads(json.dumps(subject or {}))} if checkpoints else {}
        self._earlier: dict[str, Any] = {}
        """What an earlier run has finished and this one has not come to yet."""
        self._standing: dict[str, Any] = {}
        """Where the earlier run stood."""
        self._unsaved: dict[str, Any] = {}
        """What is finished and not yet in a checkpoint."""
        self._saved: list[str] = []
        """Names of the pieces that hold what is finished."""
        self._count = 0
        self._open: JournalEntry | None = None
        self._taken_over = 0.0
        self.resumed = 0
        """How many runs broke off before this one went on with their work."""
        self.reached = 0.0
        """The share of the whole that was done last."""
        self.replaying = False
        """Whether all that was asked for so far was there already."""
        if checkpoints is not None:
            self._read(checkpoints.load())
        self._since = time.monotonic()

    def clock(self) -> float:
        """Seconds since some moment, those that earlier runs spent on what was taken over from them included."""
        return time.monotonic() + self._taken_over

    def entry(self, name: str) -> JournalEntry:
        """The next stretch of work; it must be finished before another begins."""
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
        """What `work` gives, a tree, which an earlier run may have already.

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
        assert self._open is entry, "a stretch is finished once"
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
        assert self._checkpoints is not None, "the caller has looked"
        finished = [f"{len(self._saved):05d}"] if self._unsaved else []
        for name in finished:
            pieces[name] = pytree.dump(_KIND, self._unsaved)
        about = {"subject": self._subject, "reached": self.reached, "resumed": self.resumed}
        if self._checkpoints.save(about, pieces, self._saved):
            self._saved += finished
            self._unsaved = {}
        self._since = time.monotonic()


class JournalEntry:
    """Work that is done once, however often it is broken off.

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
        """A moment from which the work can go on with no more than `state()`, which is kept if it is time to."""
        self._journal._paused(self, state)

    def finish(self, outcome: Tree) -> None:
        """The work is done; from now on `outcome` is what it gave."""
        self.outcome = pytree.contiguous(outcome)
        self._journal._finished(self, self.outcome)


@cache
def _code() -> str:
    """A digest of the learner's own source: what other code has left is not what this code would have done."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
