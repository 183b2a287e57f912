"""FastAPI dependencies of the routes: the parts of the running service, and pages of lists."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Query
from starlette.requests import Request

from service.auth.access import AccessControl
from service.auth.quotas import Quotas
from service.jobs.event_streams import EventStreams
from service.jobs.submission import Submissions
from service.lifecycle.draining import Draining
from service.lifecycle.siblings import Siblings
from service.metrics import Metrics
from service.middleware.admission import AdmissionLimits
from service.middleware.idempotency import Idempotency
from service.middleware.limiter import Limiter
from service.middleware.model_statistics import ModelStatistics
from service.models.decoding import ImageDecoder
from service.models.inference import Inference
from service.models.live import LiveModels
from service.models.novelty import NoveltyMonitors
from service.models.soundness.integrity import IntegrityChecker
from service.settings import ServiceSettings
from vault.errors import InvalidCursor
from vault.vault import Vault

_LONGEST_CURSOR = 1024
"""Characters."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Runtime:
    """The parts of one replica, made by the app when it starts and closed when it stops."""

    settings: ServiceSettings
    vault: Vault
    metrics: Metrics
    live: LiveModels
    integrity: IntegrityChecker
    inference: Inference
    novelty: NoveltyMonitors
    decoder: ImageDecoder
    submissions: Submissions
    idempotency: Idempotency
    draining: Draining
    access: AccessControl
    quotas: Quotas
    streams: EventStreams
    siblings: Siblings
    uploads: Limiter
    """For uploads that are received side by side."""
    limits: AdmissionLimits
    """Of what is let in at once."""
    statistics: ModelStatistics
    """Of the Open Inference Protocol."""

    async def refresh(self, model: str) -> None:
        """Have what is newest of a model in service, in every process of this service.

        Where that takes long, or fails, what is in service stays for the time being.
        """
        await self.live.refresh(model)
        live = {loaded.name: loaded.version for loaded in self.live.models()}
        await self.siblings.follow(model, live.get(model))

    async def reread_keys(self) -> None:
        """Have every process of this service know which keys there are now."""
        await self.access.reread()
        await self.siblings.reread_keys()


@dataclass(frozen=True)
class Page:
    """The part of a list that is asked for: at most `limit` entries behind the one at `position`."""

    limit: int
    position: str | None

    @property
    def fetch(self) -> int:
        """How many entries to fetch: one more than the limit shows whether there is a next page."""
        return self.limit + 1

    def cut(self, found: list[Item], key: Callable[[Item], str]) -> tuple[list[Item], str | None]:
        """This page's entries, and the cursor of the next page or None."""
        if len(found) <= self.limit:
            return found, None
        kept = found[: self.limit]
        return kept, encode_cursor(key(kept[-1]))


def encode_cursor(position: str) -> str:
    """An opaque, URL-safe cursor for `position`, the key of a page's last item."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The position inside a cursor.

    Raises
    ------
    InvalidCursor
        `encode_cursor` did not make it.
    """
    if not cursor or len(cursor) > _LONGEST_CURSOR:
        raise InvalidCursor("This is not a cursor of a page.")
    try:
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise InvalidCursor("This is not a cursor of a page.") from error
    if encode_cursor(position) != cursor or not position.isprintable():
        raise InvalidCursor("This is not a cursor of a page.")
    return position


# Asynchronous, since dependencies that are not take one of the threads in which requests wait for the storage.
async def _runtime(request: Request) -> Runtime:
    runtime = request.app.state.runtime
    assert isinstance(runtime, Runtime), "the app has not started: run its lifespan"
    return runtime


async def _page(
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[
        str | None, Query(max_length=_LONGEST_CURSOR, description="`next` of the page before, and nothing else.")
    ] = None,
) -> Page:
    return Page(limit, None if after is None else decode_cursor(after))


Parts = Annotated[Runtime, Depends(_runtime)]
Paging = Annotated[Page, Depends(_page)]
