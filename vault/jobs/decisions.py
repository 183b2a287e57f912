"""Write-once decisions on jobs: the commit to publish, or an end without a version."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from vault.commit_log import Commit
from vault.errors import Damaged, NotFound
from vault.jobs.ids import is_job_id
from vault.storage.documents import FIRST_FORMAT
from vault.storage.object_store import ObjectStore

log = logging.getLogger("engram.vault")

_NAME = re.compile(r"(?!0000)([0-9]{4})\.json")


@dataclass(frozen=True)
class JobEnding:
    """End of a job without a version."""

    state: Literal["failed", "cancelled"]
    error: dict[str, Any]
    """`code` and `detail`."""


@dataclass(frozen=True)
class Decision:
    """One decision: either `commit` or `ending`; neither if its record is damaged and only the number is known."""

    number: int
    """From 1, without gaps."""
    commit: Commit | None = None
    """The version to publish. If another commit got its number first, the decision has no effect."""
    ending: JobEnding | None = None

    @classmethod
    def after(cls, last: Decision | None, decided: Commit | JobEnding) -> Self:
        """The decision after `last`."""
        number = last.number + 1 if last else 1
        return cls(number, commit=decided) if isinstance(decided, Commit) else cls(number, ending=decided)


class Decisions:
    """The decisions on all jobs, `jobs/{id}/decisions/{number:04d}.json`, created once each.

    A job's result and its version are two objects, and no storage writes two at once. So a writer of either first
    creates a decision under the next number. Of any number of writers one succeeds; the others, and all later ones,
    carry out what it decided (`worker.outcome`). A writer that was suspended for however long finds its number
    taken.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def last(self, job_id: str) -> Decision | None:
        """The decision in force; None as long as there is none.

        Raises
        ------
        UnsupportedRecord
            A later release made it, which can carry it out.
        """
        number = max(self._numbers(job_id), default=0)
        if not number:
            return None
        try:
            return self._read(_path(job_id, number))
        except NotFound:
            return None  # swept, a moment ago
        except Damaged as error:
            # A damaged record must not keep the job from ending.
            log.error("of decision %d on job %s only the number is known: %s", number, job_id, error)
            return Decision(number)

    def create(self, job_id: str, decision: Decision) -> None:
        """Write a decision; raises AlreadyExists if another one has its number."""
        assert 0 < decision.number < 10_000, "a decision's number has at most 4 digits"
        assert (decision.commit is None) != (decision.ending is None), "a decision is one of both"
        document: dict[str, Any] = {"number": decision.number, "commit": None, "ending": None}
        version = FIRST_FORMAT
        if decision.commit is not None:
            # Whoever carries it out must understand the commit.
            document["commit"], version = decision.commit.to_dict(), decision.commit.format
        if decision.ending is not None:
            document["ending"] = asdict(decision.ending)
        self._objects.create_json(_path(job_id, decision.number), document, version)

    def pending(self) -> list[tuple[str, str]]:
        """All decisions on jobs that are not over, as (job, path)."""
        # Listed twice: a name damaged in transit would leave the decided commit's blobs unreferenced.
        paths = {*self._objects.list("jobs"), *self._objects.list("jobs")}
        found = []
        for path in sorted(paths):
            folder, _, name = path.rpartition("/decisions/")
            job_id = folder.removeprefix("jobs/")
            there, over = (f"{folder}/{one}.json" in paths for one in ("request", "result"))
            if _NAME.fullmatch(name) and is_job_id(job_id) and there and not over:
                found.append((job_id, path))
        return found

    def commit(self, path: str) -> Commit | None:
        """The commit of a decision to publish; None for a decision to end the job.

        Raises
        ------
        Unreadable, NotFound
            The record cannot be read, or has gone since it was listed.
        """
        return self._read(path).commit

    def _numbers(self, job_id: str) -> list[int]:
        names = [path.rsplit("/", 1)[1] for path in self._objects.list(_folder(job_id))]
        return [int(found[1]) for found in map(_NAME.fullmatch, names) if found]

    def _read(self, path: str) -> Decision:
        number = int(path.rpartition("/")[2].removesuffix(".json"))
        document = self._objects.get_json(path)
        commit, ending = document.get("commit"), document.get("ending")
        try:
            if isinstance(commit, Mapping):
                return Decision(number, commit=Commit.from_dict(commit))
            return Decision(number, ending=JobEnding(**(ending or {})))
        except (KeyError, TypeError) as error:
            raise Damaged(path, f"it is no decision ({error})") from error


def _folder(job_id: str) -> str:
    return f"jobs/{job_id}/decisions"


def _path(job_id: str, number: int) -> str:
    return f"{_folder(job_id)}/{number:04d}.json"
