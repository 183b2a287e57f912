"""Audit log: who changed what, one write-once object an entry.

    audit/{time}.{deed}.{action}.{model}.json

`time` is inverted, so that the newest comes first, and `deed` is the digest of what was done. Both follow from the
record of the deed itself, which names who asked for it: however often an entry is written, it is one object.
"""

from __future__ import annotations

import hashlib
import logging
import re
from builtins import list as List
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from vault.backbones import BackboneRecord
from vault.commit_log import Commit
from vault.errors import AlreadyExists, InvalidCursor, NotFound, Unreadable, VaultError
from vault.jobs.job import Job
from vault.keys import Key, Revocation
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map

log = logging.getLogger("engram.vault")

FOLDER = "audit"

ACTIONS: Mapping[str, str] = {
    "create": "create",
    "adopt": "adopt",
    "budget": "widen",
    "decoder": "decode",
    "publish": "publish",
    "activate": "activate",
    "reject": "reject",
    "rename": "rename",
}
"""What the kinds of commits are called here; those that jobs make are told by the submission of the job."""

CHANGES: Mapping[str, str] = {"budget": "budget", "decoder": "decoding", "publish": "publish"}
"""The kinds of commits that change something of what answers, and the field that tells whether they do."""

_NAME = re.compile(
    r"(?P<time>[0-9a-f]{16})\.(?P<deed>[0-9a-f]{32})\.(?P<action>[a-z_]{1,40})\.(?P<model>[a-z0-9_-]{1,63})"
)
_ALL_ONES = (1 << 64) - 1
_PAGE = 256
"""Names that are listed at once."""


@dataclass(frozen=True)
class AuditEntry:
    """One changing call: who did what, and when."""

    at: str
    """RFC 3339, UTC."""
    action: str
    deed: str
    """What was done, as a path that no other deed has; `id` is made of its digest."""
    by: dict[str, Any] | None
    """Who asked: `kind` ("key", "anonymous" or "cli"), the `id` of the key, and the `name` of the key or the user."""
    model: str | None = None
    task: str | None = None
    version: int | None = None
    """The version that it made, or that was there when it was done."""
    target: int | None = None
    """The version that was activated or rejected."""
    job: str | None = None
    key: str | None = None
    """The key that was made or revoked."""
    backbone: str | None = None
    changed: List[str] | None = None
    """Of `widen`, `decode` and `publish`: all that the call changed, of `budget`, `decoder` and `publish`."""
    renamed: dict[str, Any] | None = None
    """Of `rename`: what is shown of the task otherwise than before, `from`, `to` and `labels`."""

    @property
    def id(self) -> str:
        """Its name in the store."""
        deed = hashlib.sha256(self.deed.encode()).hexdigest()[:32]
        return f"{_inverted(self.at)}.{deed}.{self.action}.{self.model or '-'}"

    def shown(self) -> dict[str, Any]:
        """As JSON, without what is only for the store."""
        return {"id": self.id, **{key: value for key, value in asdict(self).items() if key != "deed"}}


class Audit:
    """The audit log of a store; safe to use from any thread. Nothing of it is ever changed or removed."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def record(self, entry: AuditEntry) -> None:
        """Write an entry, unless it is there.

        Never fails: what was done is done, and an entry that cannot be written now is written by the next completion
        (`vault.maintenance.audit_completion`).
        """
        try:
            self.write(entry)
        except VaultError as error:
            log.error("the audit log lacks %s of %s for now: %s", entry.action, entry.deed, error)

    def write(self, entry: AuditEntry) -> None:
        """Write an entry, unless it is there; raises StoreUnavailable."""
        with suppress(AlreadyExists):
            self._objects.create_json(_path(entry.id), asdict(entry))

    def version(self, model: str, commit: Commit, before: Commit | None = None) -> None:
        """Record that a version was made after `before`, by whom its commit names."""
        if (entry := of_version(model, commit, before)) is not None:
            self.record(entry)

    def job(self, job: Job) -> None:
        """Record that a job was submitted, by whom its request names."""
        if (entry := of_job(job)) is not None:
            self.record(entry)

    def cancellation(self, job: Job, record: Mapping[str, Any] | None) -> None:
        """Record that the cancellation of a job was requested, by whom its `record` names."""
        if record is not None and (by := record.get("by")) is not None:
            self.record(of_cancellation(job, record["requested_at"], by))

    def list(
        self,
        after: str | None = None,
        limit: int | None = None,
        *,
        model: str | None = None,
        action: str | None = None,
        since: str | None = None,
    ) -> List[AuditEntry]:
        """Entries, the newest first; those after the id `after`, `limit` at most. Damaged ones are skipped.

        Parameters
        ----------
        model, action
            Only those of this model, or this action.
        since
            Only those at this moment (RFC 3339) or later.

        Raises
        ------
        InvalidCursor
            `after` is no id of an entry.
        """
        if after is not None and _NAME.fullmatch(after) is None:
            raise InvalidCursor("This is not a cursor of this list.")
        oldest = None if since is None else _inverted(since)
        found: List[AuditEntry] = []
        position = None if after is None else _path(after)
        while limit is None or len(found) < limit:
            paths = self._objects.list(FOLDER, position, _PAGE)
            wanted = [path for path in paths if _fits(path, model, action, oldest)]
            while wanted and (limit is None or len(found) < limit):
                size = len(wanted) if limit is None else limit - len(found)
                found.extend(entry for entry in parallel_map(self._find, wanted[:size]) if entry is not None)
                wanted = wanted[size:]
            if len(paths) < _PAGE or (oldest is not None and _name(paths[-1])[:16] > oldest):
                break
            position = paths[-1]
        return found

    def _find(self, path: str) -> AuditEntry | None:
        try:
            document = self._objects.get_json(path)
            known = {one.name for one in fields(AuditEntry)}
            entry = AuditEntry(**{key: value for key, value in document.items() if key in known})
            if _path(entry.id) == path:
                return entry
            log.error("an entry of the audit log is passed over: %s is of another place", path)
        except (Unreadable, NotFound, TypeError, ValueError) as error:
            log.error("an entry of the audit log is passed over: %s: %s", path, error)
        return None


def of_version(model: str, commit: Commit, before: Commit | None = None) -> AuditEntry | None:
    """The entry of a version; None of one that a job made, or that does not say who asked for it.

    Parameters
    ----------
    before
        The version before it, by which is told what was changed.
    """
    if commit.by is None or commit.kind not in ACTIONS:
        return None
    changed = None
    if before is not None and commit.kind in CHANGES:
        changed = [name for name, field in CHANGES.items() if getattr(commit, field) != getattr(before, field)]
    deed = f"models/{commit.lineage}/{commit.version}"
    return AuditEntry(
        commit.created_at,
        ACTIONS[commit.kind],
        deed,
        commit.by,
        model,
        commit.task,
        commit.version,
        commit.target,
        changed=changed,
        renamed=commit.renamed,
    )


def of_job(job: Job) -> AuditEntry | None:
    """The entry of a job that somebody submitted; None of one that does not say who."""
    by = job.extra.get("by")
    if not isinstance(by, dict):
        return None
    return AuditEntry(job.created_at, "learn", f"jobs/{job.id}", by, job.model, job.task, job=job.id)


def of_cancellation(job: Job, at: str, by: dict[str, Any]) -> AuditEntry:
    """The entry of the cancellation of a job."""
    return AuditEntry(at, "cancel", f"jobs/{job.id}/cancel", by, job.model, job.task, job=job.id)


def of_key(key: Key, by: dict[str, Any]) -> AuditEntry:
    """The entry of a key that was made."""
    return AuditEntry(key.created_at, "create_key", f"keys/{key.id}", by, key=key.id)


def of_revocation(revocation: Revocation, by: dict[str, Any]) -> AuditEntry:
    """The entry of a key that was revoked."""
    return AuditEntry(revocation.at, "revoke_key", f"keys/{revocation.key}/revoked", by, key=revocation.key)


def of_backbone(record: BackboneRecord, by: dict[str, Any]) -> AuditEntry:
    """The entry of a backbone that was added."""
    deed = f"backbones/{record.name}/{record.number}"
    return AuditEntry(record.created_at, "add_backbone", deed, by, backbone=record.name)


def of_deleted_backbone(name: str, number: int, at: str, by: dict[str, Any]) -> AuditEntry:
    """The entry of a backbone that was deleted."""
    return AuditEntry(at, "delete_backbone", f"backbones/{name}/{number}/deleted", by, backbone=name)


def of_deleted_model(model: str, lineage: str, at: str, by: dict[str, Any]) -> AuditEntry:
    """The entry of a model that was deleted."""
    return AuditEntry(at, "delete", f"models/{lineage}/deleted", by, model)


def _fits(path: str, model: str | None, action: str | None, oldest: str | None) -> bool:
    match = _NAME.fullmatch(_name(path))
    return (
        match is not None
        and model in (None, match["model"])
        and action in (None, match["action"])
        and (oldest is None or match["time"] <= oldest)
    )


def _inverted(moment: str) -> str:
    """16 digits that sort in the reverse order of moments; raises ValueError."""
    when = datetime.fromisoformat(moment)
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return f"{_ALL_ONES - max(0, microseconds):016x}"


def _path(identity: str) -> str:
    return f"{FOLDER}/{identity}.json"


def _name(path: str) -> str:
    return path.removeprefix(f"{FOLDER}/").removesuffix(".json")
