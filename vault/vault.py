"""Vault: every store and board of the state under one handle."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import redis

from vault.commit_log import CommitLog
from vault.coordination import connection
from vault.coordination.events import Events
from vault.coordination.leases import Leases
from vault.coordination.novelty_board import NoveltyBoard
from vault.jobs.jobs import Jobs
from vault.keys import Keys
from vault.maintenance.sweep import Sweep, SweepAges, SweepSummary
from vault.models import Models
from vault.settings import VaultSettings
from vault.storage.object_store import ObjectStore


class Vault:
    """Durable state in object storage and short-lived state in Redis; one a process, safe to use from any thread."""

    def __init__(self, settings: VaultSettings, objects: ObjectStore, client: redis.Redis) -> None:
        self.settings = settings
        self.objects = objects
        self.redis = client
        """The client, for further keys; they must begin with `vault.coordination.connection.PREFIX`."""
        self.models = Models(objects)
        self.log = CommitLog(objects, self.models)
        self.leases = Leases(client, settings.lease_seconds)
        self.events = Events(client, settings.redis_url, settings.event_ttl_seconds, settings.event_count)
        self.jobs = Jobs(objects, client, self.leases, self.events, settings.event_ttl_seconds)
        self.novelty = NoveltyBoard(client)
        self.keys = Keys(objects)

    @classmethod
    def connect(cls, settings: VaultSettings) -> Vault:
        """Open the store and prepare the connection to Redis, which is made when first needed.

        Raises
        ------
        StoreUnavailable
        """
        return cls(settings, ObjectStore.connect(settings), connection.connect(settings.redis_url))

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

    def delete_model(self, name: str) -> None:
        """Remove a model, cancel its open jobs, and notify every service.

        A worker at one of these jobs is refused when it publishes. Blobs are left to `sweep`.

        Raises
        ------
        UnknownModel
        """
        model = self.models.delete(name)
        for job in self.jobs.open_jobs(name):
            if job.lineage in (None, model.lineage):  # it may have been made again since
                self.jobs.request_cancel(job.id)
        self.events.publish_deleted(name)

    def sweep(self, ages: SweepAges | None = None, dry_run: bool = False) -> SweepSummary:
        """Remove what is no longer needed; returns what was removed.

        Parameters
        ----------
        ages
            Minimum ages; by default those of the settings.
        dry_run
            Whether to report only, without removing anything.
        """
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
