"""Attempts at jobs, whose numbers are fencing tokens."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass

from vault.errors import AlreadyExists, LeaseLost, NotFound, Unreadable
from vault.storage.object_store import ObjectStore
from vault.timestamps import now

log = logging.getLogger("engram.vault")

_RELEASED = "-released"
_NAME = re.compile(rf"(?!0000)([0-9]{{4}})(|{_RELEASED})\.json")


@dataclass(frozen=True)
class Attempt:
    """One worker's attempt at a job."""

    number: int
    """From 1; the fencing token."""
    owner: str
    started_at: str
    """RFC 3339, UTC."""
    released: bool
    """Whether the worker gave it up in good order because it had to stop, so that it does not count as broken off."""


class Attempts:
    """The attempts at all jobs, `jobs/{id}/attempts/{number:04d}.json`, created once each."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def start(self, job_id: str, owner: str) -> int:
        """Begin an attempt; returns its number, higher than all before."""
        number = self.last(job_id)
        while True:
            number += 1
            with suppress(AlreadyExists):
                self._objects.create_json(_path(job_id, number), {"owner": owner, "started_at": now()})
                return number

    def release(self, job_id: str, number: int) -> None:
        """Record that an attempt was given up in good order."""
        with suppress(AlreadyExists):
            self._objects.create_json(_path(job_id, number, _RELEASED), {"released_at": now()})

    def last(self, job_id: str) -> int:
        """The highest number; 0 before the first attempt."""
        return max((number for number, _ in self._names(job_id)), default=0)

    def check(self, job_id: str, number: int) -> None:
        """Raise LeaseLost when a later attempt than `number` has begun."""
        last = self.last(job_id)
        if last > number:
            raise LeaseLost(f"Attempt {number} at the job {job_id} was overtaken by attempt {last}.")

    def all(self, job_id: str) -> list[Attempt]:
        """All attempts by number."""
        names = self._names(job_id)
        released = {number for number, suffix in names if suffix}
        found = []
        for number in sorted({number for number, suffix in names if not suffix}):
            with suppress(NotFound):
                found.append(self._read(job_id, number, number in released))
        return found

    def _read(self, job_id: str, number: int, released: bool) -> Attempt:
        try:
            document = self._objects.get_json(_path(job_id, number))
        except Unreadable as error:
            # An attempt counts although its record is damaged; otherwise the job would never end.
            log.error("of attempt %d at job %s only the number is known: %s", number, job_id, error)
            document = {}
        return Attempt(number, document.get("owner", ""), document.get("started_at", ""), released)

    def _names(self, job_id: str) -> list[tuple[int, str]]:
        names = [path.rsplit("/", 1)[1] for path in self._objects.list(f"jobs/{job_id}/attempts")]
        found = filter(None, map(_NAME.fullmatch, names))
        return [(int(match[1]), match[2]) for match in found]


def _path(job_id: str, number: int, suffix: str = "") -> str:
    assert 0 < number < 10_000, "an attempt's number has at most 4 digits"
    return f"jobs/{job_id}/attempts/{number:04d}{suffix}.json"
