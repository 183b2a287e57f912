"""Checkpoints of learning, stored with the job that learns."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping

from engram.checkpointing.checkpoints import Checkpoint, Checkpoints
from vault.commit_log import Commit
from vault.errors import StoreUnavailable
from vault.jobs.checkpoints import JobCheckpoints
from worker import metrics

log = logging.getLogger("engram.worker")


class StoredCheckpoints(Checkpoints):
    """Checkpoints of one attempt, which go on from those of earlier attempts at the same job on the same version.

    Parameters
    ----------
    head
        The version that is learned on; what was learned on another does not count.
    seconds
        How much work may be lost.
    stopping
        Whether the worker is to stop, and had better leave what it has done.
    resume
        Whether to go on from what earlier attempts have left, and to leave something to later ones.
    """

    def __init__(
        self, store: JobCheckpoints, head: Commit, seconds: float, stopping: Callable[[], bool], *, resume: bool
    ) -> None:
        self._store = store
        parts = [*head.engrams, head.recogniser or "", *head.kept]
        self._head = {"parts": parts, "budget": {layer: int(units) for layer, units in head.budget.items()}}
        self._seconds = seconds
        self._stopping = stopping
        self._resume = resume
        self._left_when_stopping = False

    def load(self) -> Checkpoint | None:
        if not self._resume:
            return None
        left = self._store.load()
        if left is None:
            return None
        if left.about.get("head") != self._head:
            log.warning("a checkpoint is ignored: the model has another version now")
            return None
        log.info("attempt %d left a checkpoint", left.attempt)
        about = left.about.get("learning")
        return Checkpoint(about if isinstance(about, Mapping) else {}, left.pieces)

    def due(self, seconds: float) -> bool:
        # An attempt that leaves something is not counted, and the last one is there to be counted.
        if not self._resume:
            return False
        if seconds >= self._seconds:
            return True
        if self._left_when_stopping or not self._stopping():
            return False
        self._left_when_stopping = True
        return True

    def save(self, about: Mapping[str, object], pieces: Mapping[str, bytes], kept: Collection[str]) -> bool:
        begun, size = time.monotonic(), sum(map(len, pieces.values()))
        try:
            self._store.save({"head": self._head, "learning": dict(about)}, pieces, kept)
        except StoreUnavailable as error:
            log.warning("no checkpoint could be left: %s", error)
            return False
        taken = time.monotonic() - begun
        metrics.checkpoints.observe(taken)
        log.info("a checkpoint of %d bytes was left in %.0f ms", size, 1000 * taken)
        return True
