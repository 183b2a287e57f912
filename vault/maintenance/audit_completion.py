"""Completion of the audit log after deaths: entries that are made of the records of what was done."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from vault import audit
from vault.audit import Audit, AuditEntry
from vault.backbones import Backbones
from vault.commit_log import Commit, record_path
from vault.errors import NotFound, UnknownModel, Unreadable, VaultError
from vault.jobs.job import Job
from vault.keys import Keys
from vault.models import Model, Models
from vault.storage.object_store import ObjectStore
from vault.storage.parallel import parallel_map
from vault.timestamps import now

log = logging.getLogger("engram.vault")

DELETIONS = "deletions"
"""Folder of the deletions of models that are under way: a model that is gone could not tell who deleted it."""
_MARK = "sweeps/audit.json"
"""Written when a completion has come to its end: when it began."""
_SKEW = timedelta(hours=1)
"""How far the clocks of the store and of its users may be apart; also how long a deletion may take."""
_JOB = ("id", "model", "task", "data", "options", "created_at")


class AuditCompletion:
    """Writes the entries that processes owe which died after they had done something and before they said so.

    Whatever is done names who asked for it in its own record, and its entry follows from that, so that both write the
    same. Only records are read that were written since the last completion.
    """

    def __init__(self, objects: ObjectStore, log_: Audit) -> None:
        self._objects = objects
        self._audit = log_
        self._models = Models(objects)
        self._kinds: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], AuditEntry | None]], ...] = (
            (re.compile(r"models/(?P<model>[^/]+)/log/[^/]+/[0-9]{8}\.json"), self._of_version),
            (re.compile(r"jobs/(?P<job>[^/]+)/request\.json"), self._of_job),
            (re.compile(r"jobs/(?P<job>[^/]+)/cancel\.json"), self._of_cancellation),
            (re.compile(r"keys/(?P<key>[^/]+)/key\.json"), self._of_key),
            (re.compile(r"keys/(?P<key>[^/]+)/revoked\.json"), self._of_revocation),
            (re.compile(r"backbones/(?P<backbone>[^/]+)/(?P<number>[0-9]{8})\.json"), self._of_backbone),
            (
                re.compile(r"backbones/(?P<backbone>[^/]+)/(?P<number>[0-9]{8})\.deleted\.json"),
                self._of_deleted_backbone,
            ),
        )

    def run(self) -> None:
        """Write the entries that are missing of what was done since the last completion.

        Raises
        ------
        StoreUnavailable
        """
        began, since = now(), self._since()
        for folder in ("models", "jobs", "keys", "backbones"):
            self._complete(folder, since)
        self._complete_deletions()
        self._objects.put_json(_MARK, {"at": began})

    def begin_deletion(self, model: Model, by: Mapping[str, Any]) -> str:
        """Note that a model is about to be deleted, and by whom; returns when.

        Entries that are missing of what was done to it are written first.
        """
        self._complete(f"models/{model.name}/log/{model.lineage}", self._since())
        at = now()
        self._objects.put_json(_deletion(model.lineage), {"model": model.name, "at": at, "by": dict(by)})
        return at

    def end_deletion(self, entry: AuditEntry, lineage: str) -> None:
        """Write the entry of a deletion that was done; never fails, as `Audit.record`."""
        try:
            self._audit.write(entry)
            self._objects.delete(_deletion(lineage))
        except VaultError as error:
            log.error("the audit log lacks the deletion of %s for now: %s", entry.model, error)

    def _since(self) -> datetime:
        try:
            return datetime.fromisoformat(self._objects.get_json(_MARK)["at"]) - _SKEW
        except (NotFound, Unreadable, KeyError, TypeError, ValueError):
            return datetime.min.replace(tzinfo=UTC)

    def _complete(self, folder: str, since: datetime) -> None:
        recent = [path for path, written in self._objects.written(folder).items() if written >= since]
        for entry in filter(None, parallel_map(self._entry, recent)):
            self._audit.write(entry)

    def _complete_deletions(self) -> None:
        for path, written in self._objects.written(DELETIONS).items():
            lineage = path.removeprefix(f"{DELETIONS}/").removesuffix(".json")
            try:
                document = self._objects.get_json(path)
                name, at, by = str(document["model"]), str(document["at"]), dict(document["by"])
            except (Unreadable, NotFound, KeyError, TypeError, ValueError) as error:
                log.error("a deletion is passed over: %s: %s", path, error)
                continue
            if self._is_there(name, lineage):
                # It was not deleted after all, unless somebody is about to.
                if datetime.now(UTC) - written > _SKEW:
                    self._objects.delete(path)
                continue
            self._audit.write(audit.of_deleted_model(name, lineage, at, by))
            self._objects.delete(path)

    def _is_there(self, name: str, lineage: str) -> bool:
        try:
            return self._models.get(name).lineage == lineage
        except UnknownModel:
            return False
        except Unreadable:
            return True

    def _entry(self, path: str) -> AuditEntry | None:
        """The entry of what a record says was done; None where it does not say by whom."""
        for pattern, entry in self._kinds:
            if match := pattern.fullmatch(path):
                try:
                    return entry(match)
                except (Unreadable, NotFound, KeyError, TypeError, ValueError) as error:
                    log.error("whether the audit log has %s cannot be told: %s", path, error)
        return None

    def _of_version(self, match: re.Match[str]) -> AuditEntry | None:
        model, commit = match["model"], Commit.from_dict(self._objects.get_json(match[0]))
        before = None
        if commit.kind in audit.CHANGES and commit.parent is not None:
            with suppress(NotFound, Unreadable):
                path = record_path(model, commit.lineage, commit.parent)
                before = Commit.from_dict(self._objects.get_json(path))
        return audit.of_version(model, commit, before)

    def _job(self, job_id: str) -> Job:
        request = self._objects.get_json(f"jobs/{job_id}/request.json")
        return Job(**{name: request[name] for name in _JOB}, extra=request.get("extra") or {})

    def _of_job(self, match: re.Match[str]) -> AuditEntry | None:
        return audit.of_job(self._job(match["job"]))

    def _of_cancellation(self, match: re.Match[str]) -> AuditEntry | None:
        document = self._objects.get_json(match[0])
        if (by := document.get("by")) is None:
            return None
        return audit.of_cancellation(self._job(match["job"]), document["requested_at"], by)

    def _of_key(self, match: re.Match[str]) -> AuditEntry | None:
        key = Keys(self._objects).get(match["key"])
        return None if key.by is None else audit.of_key(key, key.by)

    def _of_revocation(self, match: re.Match[str]) -> AuditEntry | None:
        revocation = Keys(self._objects).revocation(match["key"])
        if revocation is None or revocation.by is None:
            return None
        return audit.of_revocation(revocation, revocation.by)

    def _of_backbone(self, match: re.Match[str]) -> AuditEntry | None:
        record = Backbones(self._objects).read(match[0])
        return None if record.by is None else audit.of_backbone(record, record.by)

    def _of_deleted_backbone(self, match: re.Match[str]) -> AuditEntry | None:
        document = self._objects.get_json(match[0])
        if (by := document.get("by")) is None:
            return None
        return audit.of_deleted_backbone(match["backbone"], int(match["number"]), document["deleted_at"], by)


def _deletion(lineage: str) -> str:
    return f"{DELETIONS}/{lineage}.json"
