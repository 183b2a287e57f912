"""What was asked under an idempotency key, and what was answered."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from vault.errors import AlreadyExists, Damaged, NotFound
from vault.jobs.ids import new_job_id
from vault.storage.object_store import ObjectStore
from vault.timestamps import now

FOLDER = "idempotency"


@dataclass(frozen=True)
class Claim:
    """The first request under a key; everything that is made for it, by whoever answers it, is made under `id`."""

    id: str
    """A job's id (`vault.jobs.ids.new_job_id`)."""
    fingerprint: str
    """SHA-256 of what was asked."""
    created_at: str
    """RFC 3339, UTC."""


@dataclass(frozen=True)
class RecordedAnswer:
    """What was answered; given again to whoever asks the same under the same key."""

    fingerprint: str
    """SHA-256 of what was asked."""
    status: int
    headers: dict[str, str]
    body: str


class IdempotencyRecords:
    """`idempotency/{name}/claim.json` and `answer.json`, created once each; they expire by a sweep.

    A `name` stands for one key of one caller. What was asked is known as soon as there is a claim, and
    what is to be answered as soon as there is an answer, whatever dies in between: the next to ask finds the claim
    without an answer and does the same under the same id, so that nothing is made twice.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def claim(self, name: str, fingerprint: str) -> Claim:
        """The claim of this name: the one that is there, whatever it asked for, else a new one."""
        made = Claim(new_job_id(), fingerprint, now())
        with suppress(AlreadyExists):
            self._objects.create_json(_path(name, "claim"), asdict(made))
            return made
        return self.claimed(name) or self.claim(name, fingerprint)  # swept in this moment, if it is not there

    def claimed(self, name: str) -> Claim | None:
        """What was asked first; None as long as nothing was."""
        found = self._find(_path(name, "claim"))
        return None if found is None else Claim(found["id"], found["fingerprint"], found["created_at"])

    def answer(self, name: str) -> RecordedAnswer | None:
        """What was answered; None as long as nothing was."""
        found = self._find(_path(name, "answer"))
        if found is None:
            return None
        return RecordedAnswer(found["fingerprint"], found["status"], found["headers"], found["body"])

    def keep(self, name: str, answer: RecordedAnswer) -> RecordedAnswer:
        """Keep what is about to be answered; the first one kept stands, and is returned."""
        with suppress(AlreadyExists):
            self._objects.create_json(_path(name, "answer"), asdict(answer))
            return answer
        return self.answer(name) or answer

    def _find(self, path: str) -> dict[str, Any] | None:
        wanted = RecordedAnswer if path.endswith("answer.json") else Claim
        try:
            document = self._objects.get_json(path)
        except NotFound:
            return None
        lacking = [field for field in wanted.__dataclass_fields__ if field not in document]
        if lacking:
            raise Damaged(path, f"it lacks {lacking[0]}")
        return document


def _path(name: str, kind: str) -> str:
    return f"{FOLDER}/{name}/{kind}.json"
