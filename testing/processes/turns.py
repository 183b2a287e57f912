"""Threads that take turns at the storage, so that any order of their calls can be tried, and any of them can die."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from vault.storage.backend import ObjectEntry, StorageBackend

_LONGEST = 60
"""Seconds for one turn."""


class Died(BaseException):
    """A worker was killed here."""


class Actor:
    """One who acts on the storage, a call a turn.

    Parameters
    ----------
    act
        Given what is to be called before each call of the storage, in the thread that `act` runs in.
    """

    def __init__(self, act: Callable[[Callable[[], None]], object]) -> None:
        self._act = act
        self.calls = 0
        """Those it has made."""
        self.dies_at: int | None = None
        """The number of the call that is not made any more."""
        self.over = False
        self.error: BaseException | None = None
        """What ended it, unless it died or ended well."""
        self._may_go = threading.Semaphore(0)
        self._rests = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def move(self) -> None:
        """Let it make its next call, and wait until it is about to make another or has nothing left to do."""
        self._may_go.release()
        assert self._rests.acquire(timeout=_LONGEST), "a turn takes too long"

    def kill(self) -> None:
        """It makes no more calls."""
        self.dies_at = self.calls + 1

    def turn(self) -> None:
        """Wait for one's turn; threads that only help it, and that it waits for, need not."""
        if threading.current_thread() is not self._thread:
            return
        self._rests.release()
        assert self._may_go.acquire(timeout=_LONGEST), "nobody is given a turn"
        self.calls += 1
        if self.calls == self.dies_at:
            raise Died

    def _run(self) -> None:
        assert self._may_go.acquire(timeout=_LONGEST), "nobody is given a turn"
        try:
            self._act(self.turn)
        except Died:
            pass
        except BaseException as error:
            self.error = error
        finally:
            self.over = True
            self._rests.release()


def play(actors: Sequence[Actor], chance: random.Random) -> None:
    """Let all act until none has anything left to do, in an order by chance; raises what ended one of them."""
    last: Actor | None = None
    while waiting := [actor for actor in actors if not actor.over]:
        if last not in waiting or chance.random() < 0.3:
            last = chance.choice(waiting)
        assert last is not None
        last.move()
    for actor in actors:
        if actor.error is not None:
            raise actor.error


class InTurns:
    """A storage whose calls wait for a turn."""

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

    def look(self, path: str) -> ObjectEntry:
        self._turn()
        return self._storage.look(path)

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
