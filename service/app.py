"""The application: the only place where its parts are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from engram.data.containers import ArchiveLimits
from engram.data.images import ImageLimits
from engram.runtime import configure
from service.api import explain, health, jobs, models, novelty, openapi, predict, tasks, versions
from service.api.route import scopes
from service.auth.access import AccessControl
from service.auth.key_cache import KeyCache
from service.auth.quotas import Quotas
from service.dependencies import Runtime
from service.jobs.event_streams import EventStreams
from service.jobs.submission import Submissions
from service.jobs.wakeup import WakeupSender
from service.lifecycle.background import BacklogWatch, MemoryTrimmer
from service.lifecycle.draining import Draining
from service.metrics import Metrics
from service.middleware import error_handlers
from service.middleware.body_limits import BodyLimit
from service.middleware.concurrency import ConcurrencyLimit
from service.middleware.idempotency import Idempotency
from service.middleware.limiter import Limiter
from service.middleware.request_log import RequestLog, is_probe
from service.middleware.response_headers import ResponseHeaders
from service.models.decoding import ImageDecoder
from service.models.inference import Inference
from service.models.integrity import IntegrityChecker
from service.models.live import LiveModels
from service.models.novelty import NoveltyMonitors
from service.models.readiness import unready
from service.settings import ServiceSettings
from vault.keys import KeyLimits
from vault.vault import Vault


def create_app(settings: ServiceSettings | None = None) -> FastAPI:
    """The HTTP interface of one replica; without settings, those of the environment.

    Raises
    ------
    StoreUnavailable
        When its lifespan begins: the storage cannot be opened.
    """
    settings = settings or ServiceSettings()
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _running(settings, metrics) as runtime:
            app.state.runtime = runtime
            yield

    app = FastAPI(
        title="Engram",
        version=version("engram"),
        description="Image models that keep learning and never forget.",
        lifespan=lifespan,
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
    for module in (models, tasks, jobs, predict, explain, novelty, versions, health):
        app.include_router(module.router)
    app.add_middleware(BodyLimit, settings=settings, metrics=metrics)
    app.add_middleware(ConcurrencyLimit, settings=settings, metrics=metrics)
    app.add_middleware(ResponseHeaders)
    # The last one added is the outermost.
    app.add_middleware(RequestLog, metrics=metrics)
    return app


@asynccontextmanager
async def _running(settings: ServiceSettings, metrics: Metrics) -> AsyncIterator[Runtime]:
    configure(settings.torch_threads)
    vault = Vault.connect(settings)
    decoding = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
    waker = WakeupSender(settings.redis_url)
    live = LiveModels(vault, settings, metrics)
    watching = NoveltyMonitors(live, vault.novelty, metrics)
    inspection = IntegrityChecker(live.models, vault)
    backlog = BacklogWatch(vault, metrics, settings.backlog_seconds)
    inference = Inference(live, settings, metrics, watching)
    trimming = MemoryTrimmer()
    key_cache = KeyCache(vault.keys, settings.key_seconds)
    quotas = Quotas(settings.redis_url, vault.jobs, key_limits(settings))
    runtime = Runtime(
        settings=settings,
        vault=vault,
        metrics=metrics,
        live=live,
        inspection=inspection,
        inference=inference,
        novelty=watching,
        decoder=ImageDecoder(decoding, image_limits(settings), metrics),
        submissions=Submissions(vault, live, waker, archive_limits(settings), image_limits(settings)),
        idempotency=Idempotency(vault),
        draining=Draining(settings.drain_seconds),
        access=AccessControl(key_cache, quotas, settings.keys, settings.hosts),
        quotas=quotas,
        streams=EventStreams(settings, metrics),
        uploads=Limiter(metrics, "uploads", "uploads", settings.max_uploads, settings.retry_after_seconds),
    )
    runtime.draining.install()
    key_cache.start()
    live.start()
    inspection.start()
    watching.start()
    backlog.start()
    trimming.start()
    metrics.queue_limit.set(settings.queue_images)
    metrics.troubled.set_function(lambda: len(live.troubled() | inspection.troubled()))
    metrics.ready.set_function(lambda: unready(live, runtime.draining) is None)
    try:
        yield runtime
    finally:
        runtime.draining.begun = True
        runtime.draining.uninstall()
        await trimming.close()
        await backlog.close()
        await watching.close()
        await inspection.close()
        await live.close()
        await key_cache.close()
        await quotas.close()
        inference.close()
        decoding.shutdown(wait=True, cancel_futures=True)
        waker.close()
        vault.close()


def key_limits(settings: ServiceSettings) -> KeyLimits:
    """What keys may use that have no limits of their own."""
    return KeyLimits(settings.requests_per_minute, settings.images_per_day, settings.open_jobs)


def image_limits(settings: ServiceSettings) -> ImageLimits:
    """What one image may cost."""
    return ImageLimits(max_pixels=settings.max_image_pixels, max_bytes=settings.max_image_bytes)


def archive_limits(settings: ServiceSettings) -> ArchiveLimits:
    """What one upload may hold."""
    return ArchiveLimits(
        max_entries=settings.max_archive_entries,
        max_total_bytes=settings.max_archive_bytes,
        max_entry_bytes=settings.max_image_bytes,
        max_ratio=settings.max_archive_ratio,
        max_decoded_bytes=settings.max_decoded_bytes,
    )
