"""FastAPI application of one replica and its lifespan, which makes, starts and closes all parts."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Protocol

from fastapi import FastAPI
from starlette.types import ASGIApp

from engram.data.containers import ArchiveLimits
from engram.data.image_limits import ImageLimits
from engram.data.isolation.decoder import BoundedDecoder
from service.api import (
    backbones,
    evaluations,
    explain,
    health,
    jobs,
    models,
    novelty,
    openapi,
    predict,
    tasks,
    versions,
)
from service.api.admin import audit, keys
from service.api.direct import DirectRoutes
from service.api.route import scopes
from service.auth.access import AccessControl
from service.auth.key_cache import KeyCache
from service.auth.quotas import Quotas
from service.dependencies import Runtime
from service.jobs.data_uris import useless
from service.jobs.event_streams import EventStreams
from service.jobs.submission import Submissions
from service.jobs.wakeup import WakeupSender
from service.lifecycle import device
from service.lifecycle.background import AuditCompleter, BacklogWatch, GarbageLooker, MemoryTrimmer
from service.lifecycle.draining import Draining
from service.lifecycle.siblings import Question, Siblings
from service.metrics import Metrics
from service.middleware import cross_origin, error_handlers
from service.middleware.admission import AdmissionLimits
from service.middleware.entrance import Entrance
from service.middleware.idempotency import Idempotency
from service.middleware.limiter import Limiter
from service.middleware.model_statistics import ModelStatistics
from service.middleware.request_log import is_probe
from service.models.decoding import ImageDecoder
from service.models.inference import Inference
from service.models.live import LiveModels
from service.models.novelty import NoveltyMonitors
from service.models.soundness.integrity import IntegrityChecker
from service.models.soundness.readiness import unready
from service.protocol import first_version, routes
from service.settings import ServiceSettings
from service.ui.static_files import StaticPage
from vault.keys import KeyLimits
from vault.vault import Vault

log = logging.getLogger("engram.service")


class _BackgroundPart(Protocol):
    """Part of the service that runs in the event loop beside the requests."""

    def start(self) -> None: ...

    async def close(self) -> None: ...


class _Application(FastAPI):
    """FastAPI application all of whose answers pages of other origins may read, where the settings say so."""

    def build_middleware_stack(self) -> ASGIApp:
        return cross_origin.readable(super().build_middleware_stack(), self.state.settings)


def create_app(settings: ServiceSettings | None = None, siblings: Siblings | None = None) -> FastAPI:
    """The HTTP interface of one replica, or one of its processes; without settings, those of the environment.

    Raises
    ------
    StoreUnavailable, DeviceMissing
        When its lifespan begins: the storage cannot be opened, or there is no GPU where one is asked for.
    """
    settings = settings or ServiceSettings()
    metrics, siblings = Metrics(), siblings or Siblings()
    limits = AdmissionLimits.of(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(settings, metrics, limits, siblings) as runtime:
            app.state.runtime = runtime
            yield

    app = _Application(
        title="Engram",
        version=version("engram-vision"),
        description="Image models that keep learning and never forget.",
        lifespan=lifespan,
        openapi_url=None,  # `service.api.openapi` serves it
        docs_url=None,
        redoc_url=None,
        # Its server spans are wanted; metrics are Prometheus's, and its log records would hold texts of errors.
        telemetry={
            "operation_spans": False,
            "metrics": False,
            "logs": False,
            "auto_configure": False,
            "exclude": is_probe,
        },
    )
    app.state.settings = settings
    openapi.install(app, lambda: scopes(app), settings.keys)
    error_handlers.install(app)
    for module in (
        predict,
        models,
        tasks,
        evaluations,
        jobs,
        explain,
        novelty,
        versions,
        backbones,
        keys,
        audit,
        health,
        routes,
        first_version,
    ):
        app.include_router(module.router)
    StaticPage().install(app)
    # The last one added is the outermost.
    app.add_middleware(DirectRoutes, answering=app)
    app.add_middleware(Entrance, settings=settings, metrics=metrics, limits=limits)
    return app


@asynccontextmanager
async def _running(
    settings: ServiceSettings, metrics: Metrics, limits: AdmissionLimits, siblings: Siblings
) -> AsyncIterator[Runtime]:
    """The parts of one replica, started; they are closed at the end, each before those that it uses."""
    device.prepare(settings)
    for prefix, reason in useless(settings.data_uri_prefixes):
        log.warning("ENGRAM_DATA_URI_PREFIXES: %s allows nothing at present: %s.", prefix, reason)
    image_limits, archive_limits = ImageLimits.of(settings), ArchiveLimits.of(settings)
    vault = Vault.connect(settings)
    vault.guard_store()
    decode_pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
    decoder = ImageDecoder(decode_pool, BoundedDecoder(image_limits, settings.decode_processes), settings, metrics)
    probing = BoundedDecoder(image_limits)
    wakeups = WakeupSender(settings.redis_url)
    live = LiveModels(vault, settings, metrics)
    novelty = NoveltyMonitors(live, vault.novelty, metrics)
    integrity = IntegrityChecker(live.models, live.head, vault)
    backlog = BacklogWatch(vault, metrics, settings.backlog_seconds)
    inference = Inference(live, settings, metrics, novelty)
    trimmer, looker, completer = MemoryTrimmer(), GarbageLooker(), AuditCompleter(vault)
    key_cache = KeyCache(vault.keys, settings.key_seconds)
    quotas = Quotas(settings.redis_url, vault.jobs, _key_limits(settings))
    beside = (backlog, trimmer, looker, completer)
    background: tuple[_BackgroundPart, ...] = (key_cache, live, integrity, novelty, *beside)
    runtime = Runtime(
        settings=settings,
        vault=vault,
        metrics=metrics,
        live=live,
        integrity=integrity,
        inference=inference,
        novelty=novelty,
        decoder=decoder,
        submissions=Submissions(vault, live, wakeups, archive_limits, probing),
        idempotency=Idempotency(vault),
        draining=Draining(settings.drain_seconds),
        access=AccessControl(key_cache, quotas, settings.keys, settings.hosts, settings.cors_origins),
        quotas=quotas,
        streams=EventStreams(settings, metrics),
        siblings=siblings,
        uploads=Limiter(metrics, "uploads", "uploads", settings.max_uploads, settings.retry_after_seconds),
        limits=limits,
        statistics=ModelStatistics(),
    )
    metrics.queue_limit.set(settings.queue_images)
    metrics.troubled.set_function(lambda: len(live.troubled() | integrity.troubled()))
    metrics.ready.set_function(lambda: unready(live, runtime.draining) is None)
    async with AsyncExitStack() as closing:
        # The last one is closed first.
        closing.callback(vault.close)
        closing.callback(wakeups.close)
        closing.callback(probing.close)
        closing.callback(decoder.close)
        closing.callback(decode_pool.shutdown, cancel_futures=True)
        closing.callback(inference.close)
        closing.push_async_callback(quotas.close)
        await _begin(runtime, background, closing)
        yield runtime


async def _begin(runtime: Runtime, background: Sequence[_BackgroundPart], closing: AsyncExitStack) -> None:
    """Start what runs beside the requests, and have it closed."""
    for part in background:
        closing.push_async_callback(part.close)
    closing.push_async_callback(runtime.siblings.close)
    closing.callback(runtime.draining.uninstall)
    runtime.draining.install()
    for part in background:
        part.start()
    await runtime.siblings.listen(partial(_answer, runtime))


async def _answer(runtime: Runtime, question: Question) -> bytes:
    """What another process of this service is told."""
    if question["ask"] == "metrics":
        return runtime.metrics.text()
    if question["ask"] == "keys":
        await runtime.access.reread()
    else:
        await runtime.live.refresh(question["model"])
    return b"done"


def _key_limits(settings: ServiceSettings) -> KeyLimits:
    """The limits of keys that have none of their own."""
    return KeyLimits(settings.requests_per_minute, settings.images_per_day, settings.open_jobs)
