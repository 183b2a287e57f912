"""Vault: every store and board of the state under one handle."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import redis

from vault import audit
from vault.audit import Audit
from vault.backbones import Backbones
from vault.certificates.answers import CertifiedAnswers
from vault.certificates.digests import ServedDigests
from vault.certificates.issuing import CertificateIssuer
from vault.certificates.settings import SigningSettings
from vault.classes.class_index import ClassIndexes
from vault.commit_log import CommitLog
from vault.coordination import connection
from vault.coordination.events import Events
from vault.coordination.leases import Leases
from vault.coordination.novelty_board import NoveltyBoard
from vault.coordination.server import check_server_when_reached
from vault.errors import BackboneInUse, StoreUnavailable, UnknownModel, UnsoundStore
from vault.jobs.jobs import Jobs
from vault.keys import Keys
from vault.maintenance.audit_completion import AuditCompletion
from vault.maintenance.sweep import Sweep, SweepAges, SweepSummary
from vault.models import Models
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore
from vault.storage.probe import StoreProbe

log = logging.getLogger("engram.vault")

_START_SECONDS = 5.0
"""How long a process that starts waits for the probe of its store."""


class Vault:
    """Durable state in object storage and short-lived state in Redis; one a process, safe to use from any thread."""

    def __init__(self, settings: VaultSettings, objects: ObjectStore, client: redis.Redis) -> None:
        self.settings = settings
        self.objects = objects
        self.redis = client
        """The client, for further keys; they must begin with `vault.coordination.connection.PREFIX`."""
        self.models = Models(objects)
        self.log = CommitLog(objects, self.models)
        self.classes = ClassIndexes(self.log)
        self.leases = Leases(client, settings.lease_seconds)
        self.events = Events(client, settings.redis_url, settings.event_ttl_seconds, settings.event_count)
        self.jobs = Jobs(objects, client, self.leases, self.events, settings.event_ttl_seconds)
        self.novelty = NoveltyBoard(client)
        self.keys = Keys(objects)
        self.backbones = Backbones(objects)
        self.audit = Audit(objects)
        self._completion = AuditCompletion(objects, self.audit)
        self.certificates = CertificateIssuer(settings.signing_key if isinstance(settings, SigningSettings) else None)
        self.answers = CertifiedAnswers(objects)
        self.digests = ServedDigests(objects)

    @classmethod
    def connect(cls, settings: VaultSettings) -> Vault:
        """Open the store and prepare the connection to Redis, which is made when first needed.

        Raises
        ------
        StoreUnavailable
        """
        return cls(settings, ObjectStore.connect(settings), connection.connect(settings.redis_url))

    def guard_store(self) -> StoreProbe:
        """From now on nothing is created in the store before it is known to keep racing writers apart.

        What would create something in a store that does not raises UnsoundStore.
        """
        probe = StoreProbe(self.objects, self.settings)
        self.objects.before_creating = probe.require
        return probe

    def check_at_start(self, on_unsuitable: Callable[[], None]) -> None:
        """Guard the store and probe it, unless that was done before, and look at the Redis server.

        A store or a Redis that cannot be reached now keeps nobody waiting, and is looked at as soon as it can. A Redis
        of a version with a known hole is warned of.

        Parameters
        ----------
        on_unsuitable
            Called in another thread when one that could not be reached in time turns out to be of no use.

        Raises
        ------
        UnsoundStore, UnsuitableRedis
        """
        probe = self.guard_store()
        _within(_START_SECONDS, probe.require, on_unsuitable)
        check_server_when_reached(self.settings.redis_url, on_unsuitable)

    def ping(self) -> None:
        """Check that object storage and Redis answer.

        Raises
        ------
        StoreUnavailable, RedisUnavailable
        """
        self.objects.ping()
        self.ping_redis()

    def ping_redis(self) -> None:
        """Check that Redis answers; raises RedisUnavailable."""
        with connection.redis_errors():
            self.redis.ping()

    def delete_model(self, name: str, by: Mapping[str, Any] | None = None) -> None:
        """Remove a model, cancel its open jobs, and notify every service.

        A worker at one of these jobs is refused when it publishes. Blobs are left to `sweep`.

        Parameters
        ----------
        by
            Who asks, for the audit log; without it there is no entry.

        Raises
        ------
        UnknownModel
        """
        model = self.models.get(name)
        at = None if by is None else self._completion.begin_deletion(model, by)
        self.models.delete(name)
        for job in self.jobs.open_jobs(name):
            if job.lineage in (None, model.lineage):  # it may have been made again since
                self.jobs.request_cancel(job.id)
        self.events.publish_deleted(name)
        if by is not None and at is not None:
            self._completion.end_deletion(audit.of_deleted_model(name, model.lineage, at, dict(by)), model.lineage)

    def delete_backbone(self, name: str, by: Mapping[str, Any] | None = None) -> None:
        """Delete a backbone that no model has, leaving its weights to `sweep`; `by` is who asks, for the audit log.

        Models have weights, not names: where another backbone is of the same weights, it is what they have. A model
        that is made of it at this very moment keeps the weights, which its versions name.

        Raises
        ------
        UnknownBackbone, BackboneInUse
        Unreadable
            The newest version of a model cannot be read, so that it may have the backbone.
        """
        record = self.backbones.get(name)
        having = []
        alone = all(one.name == name or one.weights != record.weights for one in self.backbones.list())
        for model in self.models.list() if alone else ():
            with suppress(UnknownModel):  # deleted since
                head = self.log.head(model.name)
                if head is not None and record.weights in head.backbones:
                    having.append(model.name)
        if having:
            raise BackboneInUse(name, having)
        deleted = self.backbones.delete(record, by)
        if (author := deleted.get("by")) is not None:
            entry = audit.of_deleted_backbone(name, record.number, deleted["deleted_at"], author)
            self.audit.record(entry)

    def complete_audit(self) -> None:
        """Write entries of the audit log that processes owe which died; raises StoreUnavailable."""
        self._completion.run()

    def sweep(self, ages: SweepAges | None = None, dry_run: bool = False) -> SweepSummary:
        """Remove what is no longer needed; returns what was removed.

        Parameters
        ----------
        ages
            Minimum ages; by default those of the settings.
        dry_run
            Whether to report only, without removing anything.
        """
        if not dry_run:
            self.complete_audit()
        return Sweep(self.objects, ages or SweepAges.of(self.settings), dry_run).run()

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _within(seconds: float, require: Callable[[], None], on_unsuitable: Callable[[], None]) -> None:
    """Run `require` for so long, and let it end in another thread if it takes longer; raises what it raises."""
    outcome: Future[None] = Future()

    def run() -> None:
        try:
            require()
        except Exception as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    def late(ended: Future[None]) -> None:
        if isinstance(error := ended.exception(), UnsoundStore):
            log.critical("%s", error, extra={"code": error.code})
            on_unsuitable()

    threading.Thread(target=run, name="probe", daemon=True).start()
    try:
        outcome.result(seconds)
    except TimeoutError:
        log.warning("the store takes its time; it will be probed before anything is created in it")
        outcome.add_done_callback(late)
    except StoreUnavailable as error:
        log.warning("the store will be probed before anything is created in it: %s", error)
