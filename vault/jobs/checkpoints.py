"""Checkpoints of open jobs in the store."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from vault.errors import Damaged, JobOver, NotFound, Unreadable
from vault.jobs.jobs import Jobs
from vault.jobs.records import JobRecords
from vault.storage.object_store import ObjectStore

log = logging.getLogger("engram.vault")

_OBJECT = re.compile(r"jobs/[^/]+/checkpoint/[0-9]{4}/[^/]+")
_MANIFEST = re.compile(r"jobs/[^/]+/checkpoint/[0-9]{4}/[0-9]{6}\.json")


@dataclass(frozen=True)
class CheckpointContent:
    """One complete checkpoint."""

    attempt: int
    """Number of the attempt that wrote it."""
    about: Mapping[str, Any]
    pieces: Mapping[str, bytes]


class JobCheckpoints:
    """The checkpoints of one job as one of its attempts sees them; only the newest is kept.

    `jobs/{id}/checkpoint/{attempt:04d}/{number:06d}.json` names pieces beside it, which are named by their SHA-256 and
    written before it. Every attempt writes into a folder of its own, so that one that was overtaken cannot damage a
    later attempt's checkpoint, which counts. All are removed when the job is over.
    """

    def __init__(self, objects: ObjectStore, jobs: Jobs, job_id: str, token: int) -> None:
        self._objects = objects
        self._jobs = jobs
        self._job = job_id
        self._token = token
        self._number = 0
        self._pieces: dict[str, str] = {}
        """SHA-256 of each piece of the last checkpoint, by name."""

    def load(self) -> CheckpointContent | None:
        """The newest readable checkpoint of any attempt; raises StoreUnavailable."""
        for path in sorted(filter(_is_manifest, self._objects.list(_folder(self._job))), reverse=True):
            try:
                document = self._objects.get_json(path)
                pieces = {name: self._piece(path, sha) for name, sha in document["pieces"].items()}
                return CheckpointContent(_attempt(path), document["about"], pieces)
            except (Unreadable, NotFound, KeyError, AttributeError) as error:
                log.warning("job %s: the checkpoint %s is passed over: %s", self._job, path, error)
        return None

    def save(self, about: Mapping[str, Any], pieces: Mapping[str, bytes], kept: Collection[str]) -> None:
        """Replace the last checkpoint.

        Parameters
        ----------
        pieces
            New pieces, by name.
        kept
            Names of earlier pieces that this object stored and that remain part of the checkpoint.

        Raises
        ------
        LeaseLost, JobOver
            A later attempt has begun, or the job has a result; no checkpoint remains of this call.
        StoreUnavailable
            The last checkpoint remains valid.
        """
        self._jobs.check_token(self._job, self._token)
        named = {name: self._pieces[name] for name in kept}
        for name, data in pieces.items():
            named[name] = hashlib.sha256(data).hexdigest()
            self._objects.put(self._own(named[name]), data)
        self._number += 1
        path = self._own(f"{self._number:06d}.json")
        self._objects.create_json(path, {"about": dict(about), "pieces": named})
        self._pieces = named
        self._remove_older({path, *map(self._own, named.values())})
        try:
            self._jobs.check_token(self._job, self._token)
        except JobOver:  # it ended during the write, and nobody else would remove the checkpoint
            JobRecords(self._objects).remove_checkpoints(self._job)
            raise

    def _remove_older(self, newest: set[str]) -> None:
        """Remove the checkpoints of this attempt and of those before it, except the newest."""
        for path in filter(_OBJECT.fullmatch, self._objects.list(_folder(self._job))):
            if path not in newest and _attempt(path) <= self._token:
                self._objects.delete(path)

    def _piece(self, manifest: str, sha: str) -> bytes:
        path = f"{manifest.rpartition('/')[0]}/{sha}"
        data = self._objects.get(path)
        if hashlib.sha256(data).hexdigest() != sha:
            raise Damaged(path, "its SHA-256 is not the one it is called by")
        return data

    def _own(self, name: str) -> str:
        return f"{_folder(self._job)}/{self._token:04d}/{name}"


def last_checkpointed_attempt(objects: ObjectStore, job_id: str) -> int:
    """Number of the last attempt that left a checkpoint, and so got further than those before it; 0 if none did."""
    return max(map(_attempt, filter(_is_manifest, objects.list(_folder(job_id)))), default=0)


def _folder(job_id: str) -> str:
    return f"jobs/{job_id}/checkpoint"


def _is_manifest(path: str) -> bool:
    return _MANIFEST.fullmatch(path) is not None


def _attempt(path: str) -> int:
    return int(path.split("/")[3])
