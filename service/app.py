"""The application: the only place where its parts are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from engram.containers import ArchiveLimits
from engram.images import ImageLimits
from engram.runtime import configure
from service import errors
from service.bodies import BodyLimit
from service.draining import Draining
from service.images import Decoder
from service.inference import Inference
from service.live import LiveModels
from service.metrics import Metrics, RequestMetrics
from service.novelty import Novelty
from service.routes import explain, health, jobs, models, novelty, predict, tasks, versions
from service.runtime import Runtime
from service.settings import ServiceSettings
from service.submission import Submissions
from service.wake import Waker
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
    )
    errors.install(app)
    for module in (models, tasks, jobs, predict, explain, novelty, versions, health):
        app.include_router(module.router)
    app.add_middleware(BodyLimit, requests=settings.max_request_bytes, uploads=settings.max_upload_bytes)
    app.add_middleware(RequestMetrics, metrics=metrics)
    return app


@asynccontextmanager
async def _running(settings: ServiceSettings, metrics: Metrics) -> AsyncIterator[Runtime]:
    configure(settings.torch_threads)
    vault = Vault.connect(settings)
    decoding = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
    waker = Waker(settings.redis_url)
    live = LiveModels(vault, settings, metrics)
    watching = Novelty(live, vault.novelty, metrics)
    inference = Inference(live, settings, metrics, watching)
    runtime = Runtime(
        settings=settings,
        vault=vault,
        metrics=metrics,
        live=live,
        inference=inference,
        novelty=watching,
        decoder=Decoder(decoding, image_limits(settings), metrics),
        submissions=Submissions(vault, live, waker, archive_limits(settings), image_limits(settings)),
        draining=Draining(settings.drain_seconds),
    )
    runtime.draining.install()
    live.start()
    watching.start()
    try:
        yield runtime
    finally:
        runtime.draining.begun = True
        runtime.draining.uninstall()
        await watching.close()
        await live.close()
        inference.close()
        decoding.shutdown(wait=True, cancel_futures=True)
        waker.close()
        vault.close()


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
