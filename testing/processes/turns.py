"""Threads that call the storage in turns, in a controlled order.

So any interleaving of their calls can be tried, and any thread can be killed between two calls.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from vault.storage.backend import ObjectEntry, StorageBackend

_LONGEST = 60
"""Seconds for one turn."""


class ActorKilled(BaseException):
    """Raised in place of the storage call at which an actor is killed."""


class Actor:
    """A thread that makes one call of the storage in each turn.

    Parameters
    ----------
    act
        Runs in the thread; its argument must be called before each call of the storage.
    """

    def __init__(self, act: Callable[[Callable[[], None]], object]) -> None:
        self._act = act
        self.calls = 0
        """Number of calls made."""
        self.dies_at: int | None = None
        """Number of the call at which it is killed."""
        self.over = False
        self.error: BaseException | None = None
        """The exception that ended it, unless it was killed or ended well."""
        self._turn_given = threading.Semaphore(0)
        self._turn_over = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it make its next call, and wait until it is about to make another or is done."""
        self._turn_given.release()
        assert self._turn_over.acquire(timeout=_LONGEST), "a turn takes too long"

    def kill(self) -> None:
        """Kill it before its next call."""
        self.dies_at = self.calls + 1

    def wait_for_turn(self) -> None:
        """Wait for the next turn; returns at once in helper threads, for which the actor itself waits."""
        if threading.current_thread() is not self._thread:
            return
        self._turn_over.release()
        assert self._turn_given.acquire(timeout=_LONGEST), "nobody is given a turn"
        self.calls += 1
        if self.calls == self.dies_at:
            raise ActorKilled

    def _run(self) -> None:
        assert self._turn_given.acquire(timeout=_LONGEST), "nobody is given a turn"
        try:
            self._act(self.wait_for_turn)
        except ActorKilled:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.over = True
            self._turn_over.release()


def interleave(actors: Sequence[Actor], chance: random.Random) -> None:
    """Run all actors to their ends in a random order of their calls; raises the exception that ended one of them."""
    last: Actor | None = None
    while waiting := [actor for actor in actors if not actor.over]:
        if last not in waiting or chance.random() < 0.3:
            last = chance.choice(waiting)
        assert last is not None
        last.step()
    for actor in actors:
        if actor.error is not None:
            raise actor.error


class TurnTakingBackend:
    """A storage backend whose calls wait for a turn."""

    def __init__(self, storage: StorageBackend, turn: Callable[[], None]) -> None:
        self._storage = storage
        self._turn = turn

    def write(self, path: str, data: bytes | Path, *, overwrite: bool) -> None:
        self._turn()
        self._storage.write(path, data, overwrite=overwrite)

    def read(self, path: str) -> bytes:
        self._turn()
        return self._storage.read(path)

    def stream(self, path: str) -> Iterator[bytes | memoryview]:
        self._turn()
        return self._storage.stream(path)

    def stat(self, path: str) -> ObjectEntry:
        self._turn()
        return self._storage.stat(path)

    def remove(self, path: str) -> None:
        self._turn()
        self._storage.remove(path)

    def paths(self, prefix: str, after: str | None = None, limit: int | None = None) -> Iterable[str]:
        self._turn()
        return self._storage.paths(prefix, after, limit)

    def entries(self, prefix: str) -> Iterable[ObjectEntry]:
        self._turn()
        return self._storage.entries(prefix)

    def folders(self, prefix: str | None) -> list[str]:
        self._turn()
        return self._storage.folders(prefix)

    def remove_empty(self, prefix: str) -> None:
        self._turn()
        self._storage.remove_empty(prefix)
