"""What was decided of a job: that a version is published for it, or that it ends without one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

from vault.commit_log import Commit
from vault.errors import Damaged, NotFound
from vault.jobs.ids import is_job_id
from vault.storage.object_store import ObjectStore

log = logging.getLogger("engram.vault")

_NAME = re.compile(r"(?!0000)([0-9]{4})\.json")


@dataclass(frozen=True)
class JobEnding:
    """How a job ends without a version."""

    state: Literal["failed", "cancelled"]
    error: dict[str, Any]
    """`code` and `detail`."""


@dataclass(frozen=True)
class Decision:
    """One of `commit` and `ending`; neither in one that is damaged, of which only the number is known."""

    number: int
    """From 1, without gaps."""
    commit: Commit | None = None
    """The version to publish. Another commit may have got its number first: then nothing is decided yet."""
    ending: JobEnding | None = None

    @classmethod
    def after(cls, last: Decision | None, decided: Commit | JobEnding) -> Self:
        """The decision that follows on `last`."""
        number = last.number + 1 if last else 1
        return cls(number, commit=decided) if isinstance(decided, Commit) else cls(number, ending=decided)


class Decisions:
    """The decisions on all jobs, `jobs/{id}/decisions/{number:04d}.json`, created once each.

    A job's result and the version it makes are two objects, and no storage writes two at once. So whoever wants to
    write either first says so here, under the next number. Of any number of writers one succeeds; the others, and
    whoever comes later, do what it has said (`worker.outcome`). A writer that stood still for however long finds its
    number taken.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def last(self, job_id: str) -> Decision | None:
        """The decision that counts; None as long as there is none.

        Raises
        ------
        UnsupportedFormat
            A later release made it, which will know what to do.
        """
        number = max(self._numbers(job_id), default=0)
        if not number:
            return None
        try:
            return self._read(_path(job_id, number))
        except NotFound:
            return None  # swept, a moment ago
        except Damaged as error:
            # It must not keep the job from its end.
            log.error("of decision %d on job %s only the number is known: %s", number, job_id, error)
            return Decision(number)

    def create(self, job_id: str, decision: Decision) -> None:
        """Decide; raises AlreadyExists when another decision has that number."""
        assert 0 < decision.number < 10_000, "a decision's number has at most 4 digits"
        assert (decision.commit is None) != (decision.ending is None), "a decision is one of both"
        self._objects.create_json(_path(job_id, decision.number), asdict(decision))

    def pending(self) -> list[tuple[str, str]]:
        """Every decision on a job that is not over, as its job and its path."""
        # Twice: a name that was harmed on its way would leave what is decided on named by nothing.
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
        """The version that was decided to be published, None for another decision.

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
