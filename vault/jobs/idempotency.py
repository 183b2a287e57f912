"""Claims and recorded answers of idempotency keys."""

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
    """The first request under a key; everything that is created for it, by any process, is created under `id`."""

    id: str
    """A job's id (`vault.jobs.ids.new_job_id`)."""
    fingerprint: str
    """SHA-256 of the request."""
    created_at: str
    """RFC 3339, UTC."""


@dataclass(frozen=True)
class RecordedAnswer:
    """The answer under a key, which is repeated for the same request under the same key."""

    fingerprint: str
    """SHA-256 of the request."""
    status: int
    headers: dict[str, str]
    body: str


class IdempotencyRecords:
    """`idempotency/{name}/claim.json` and `answer.json`, created once each; they expire by a sweep.

    A `name` stands for one key of one caller. The claim fixes the request and the answer object fixes the answer,
    whatever dies in between: the next caller finds the claim without an answer and does the same under the same id, so
    that nothing is created twice.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def claim(self, name: str, fingerprint: str) -> Claim:
        """The claim of this name: the existing one, whatever its request, else a new one."""
        made = Claim(new_job_id(), fingerprint, now())
        with suppress(AlreadyExists):
            self._objects.create_json(_path(name, "claim"), asdict(made))
            return made
        return self.claimed(name) or self.claim(name, fingerprint)  # swept at this moment if it is missing

    def claimed(self, name: str) -> Claim | None:
        """The claim of this name; None as long as there is none."""
        found = self._find(_path(name, "claim"))
        return None if found is None else Claim(found["id"], found["fingerprint"], found["created_at"])

    def answer(self, name: str) -> RecordedAnswer | None:
        """The recorded answer of this name; None as long as there is none."""
        found = self._find(_path(name, "answer"))
        if found is None:
            return None
        return RecordedAnswer(found["fingerprint"], found["status"], found["headers"], found["body"])

    def keep(self, name: str, answer: RecordedAnswer) -> RecordedAnswer:
        """Record an answer before it is sent; returns the first one recorded, which stands."""
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
