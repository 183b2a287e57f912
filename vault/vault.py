"""The vault: all of the state under one roof."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Self

import redis

from vault import connection
from vault.events import Events
from vault.jobs import Jobs
from vault.leases import Leases
from vault.log import CommitLog
from vault.models import Models
from vault.novelty import NoveltyBoard
from vault.objects import Objects
from vault.settings import VaultSettings
from vault.sweep import GRACE, sweep


class Vault:
    """Versioned state in object storage, and in Redis what moves. One for a process; safe to use from any thread."""

    def __init__(self, settings: VaultSettings, objects: Objects, client: redis.Redis) -> None:
        self.settings = settings
        self.objects = objects
        self.redis = client
        """For keys of one's own; they begin with `vault.connection.PREFIX`."""
        self.models = Models(objects)
        self.log = CommitLog(objects, self.models)
        self.leases = Leases(client, settings.lease_seconds)
        self.events = Events(client, settings.redis_url, settings.event_ttl_seconds, settings.event_count)
        self.jobs = Jobs(objects, client, self.leases, self.events, settings.event_ttl_seconds)
        self.novelty = NoveltyBoard(client)

    @classmethod
    def connect(cls, settings: VaultSettings) -> Vault:
        """Open the store and prepare the connection to Redis, which is made when first needed.

        Raises
        ------
        StoreUnavailable
        """
        return cls(settings, Objects.connect(settings), connection.connect(settings.redis_url))

    def ping(self) -> None:
        """Ask both stores for something.

        Raises
        ------
        StoreUnavailable, RedisUnavailable
        """
        self.objects.ping()
        with connection.redis_errors():
            self.redis.ping()

    def delete_model(self, name: str) -> None:
        """Remove a model, end its open jobs as cancelled with the code `model_deleted`, and tell every service.

        A worker at one of these jobs is refused when it publishes. Blobs are left to `sweep`.

        Raises
        ------
        UnknownModel
        """
        self.models.delete(name)
        error = {"code": "model_deleted", "detail": f"The model {name} was deleted."}
        for job in self.jobs.open_jobs(name):
            self.jobs.finish(job.id, "cancelled", error=error, delete_upload=True)
        self.events.publish_deleted(name)

    def sweep(self, grace: timedelta = GRACE) -> list[str]:
        """Remove blobs that no model's commit names and that are older than `grace`; their paths."""
        return sweep(self.objects, self.models, self.log, grace)

    def close(self) -> None:
        """Give the connections back."""
        self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
