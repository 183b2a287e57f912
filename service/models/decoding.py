"""Decoding of a request's images in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from engram.config.definition import InputShape
from engram.data.images import ImageLimits, decode
from engram.errors import ImageError
from service.errors.exceptions import ServiceError
from service.metrics import Metrics
from service.models.image_bodies import Source
from telemetry import traces


class ImageDecoder:
    """Decoder of images in threads, so that neither the event loop nor inference waits for it."""

    def __init__(self, pool: ThreadPoolExecutor, limits: ImageLimits, metrics: Metrics) -> None:
        self._pool = pool
        self._limits = limits
        self._metrics = metrics

    async def decode(self, sources: Sequence[Source], shape: InputShape, decoder: int) -> list[Tensor | Exception]:
        """For each source its image (C, H, W) uint8, or the error that is its own."""
        loop = asyncio.get_running_loop()
        with traces.span("decode", attributes={"engram.images": len(sources)}):
            return await asyncio.gather(
                *(loop.run_in_executor(self._pool, self._one, one, shape, decoder) for one in sources)
            )

    def _one(self, source: Source, shape: InputShape, decoder: int) -> Tensor | Exception:
        if isinstance(source, ServiceError):
            self._metrics.images.labels("refused").inc()
            return source
        try:
            image = decode(source, shape, self._limits, decoder)
        except ImageError as error:
            self._metrics.images.labels("refused").inc()
            return error
        self._metrics.images.labels("decoded").inc()
        return image
