"""Decoding of a request's images, beside what else the service does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import ClientDisconnect
from torch import Tensor

from engram.config.definition import InputShape
from engram.data.images import as_tensor
from engram.data.isolation.decoder import BoundedDecoder
from engram.data.pictures import checked, checked_pixels
from engram.errors import ImageError
from service.errors.exceptions import ServiceError
from service.metrics import Metrics
from service.middleware.limiter import Limiter
from service.models.image_bodies import Source
from service.settings import ServiceSettings
from telemetry import traces

_LEFT_SECONDS = 0.25
"""Between two looks at whether the client of a costly image is still there."""

_FEW = 32
_SMALL_BYTES = 16 * 2**10
_SMALL_SECONDS = 1e-3
_LOOP_SECONDS = 4e-3
"""So few images, of so few bytes and so little time each and in all, are decoded in the event loop: a thread would cost
more, and wait for the interpreter's lock as the event loop then did."""
_TOGETHER = 32
"""Small images that go to a thread together: two threads would take turns at the interpreter's lock."""

Gone = Callable[[], Awaitable[bool]]
"""Whether the client has left."""


def _is_small(source: Source) -> bool:
    return isinstance(source, ServiceError) or len(source) <= _SMALL_BYTES


class _Budget:
    """Seconds that are left for decoding in the event loop, by estimate and by the clock.

    The estimate takes time as well: from the first image that does not fit on, all the others are for threads.
    """

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._end = time.perf_counter() + seconds

    @property
    def spent(self) -> bool:
        """Whether no further image is to be looked at."""
        return self._left < 0 or time.perf_counter() > self._end

    def takes(self, seconds: float) -> bool:
        """Whether one more image fits, which counts then."""
        if seconds > min(_SMALL_SECONDS, self._left):
            self._left = -1.0
            return False
        self._left -= seconds
        return True


class ImageDecoder:
    """Decoder of images: small ones in the event loop, light ones in threads, costly ones in processes.

    The costly ones of a request are decoded one after the other, so that a request takes one process at a time; those
    of `decode_queue` requests wait for one at most.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, bounded: BoundedDecoder, settings: ServiceSettings, metrics: Metrics
    ) -> None:
        self._pool = pool
        self._bounded = bounded
        self._limits = bounded.limits
        self._decoded, self._refused = (metrics.images.labels(outcome) for outcome in ("decoded", "refused"))
        self._waiters = ThreadPoolExecutor(settings.decode_processes, thread_name_prefix="decode-costly")
        self._requests = Limiter(
            metrics, "decode", "images that take long to decode", settings.decode_queue, settings.retry_after_seconds
        )

    def close(self) -> None:
        """Kill the processes, once the requests are over."""
        self._waiters.shutdown(cancel_futures=True)
        self._bounded.close()

    async def decode(
        self,
        sources: Sequence[Source],
        shape: InputShape,
        decoder: int,
        gone: Gone | None = None,
    ) -> list[Tensor | Exception]:
        """For each source its image (C, H, W) uint8, or the error that is its own.

        Parameters
        ----------
        gone
            Whether the client has left, asked while costly images are decoded, which then ends.

        Raises
        ------
        Overloaded
            Some of the images are costly, and too many requests have such ones already.
        ClientDisconnect
            `gone` turned true.
        """
        with traces.child("decode", {"engram.images": len(sources)}):
            found = await self._all_light(sources, shape, decoder)
            decoded = [one for one in found if one is not None]
            if len(decoded) < len(found):
                with self._requests.held():
                    decoded = [
                        await self._costly(source, shape, decoder, gone) if one is None else one
                        for source, one in zip(sources, found, strict=True)
                    ]
        refused = sum([isinstance(one, Exception) for one in decoded])
        self._decoded.inc(len(decoded) - refused)
        self._refused.inc(refused)
        return decoded

    async def _all_light(
        self, sources: Sequence[Source], shape: InputShape, decoder: int
    ) -> Sequence[Tensor | Exception | None]:
        """For each source what `_light` says: at once where they are few and small, otherwise in threads."""
        if len(sources) <= _FEW and all(map(_is_small, sources)):
            budget = _Budget(_LOOP_SECONDS)
            found = [self._light(one, shape, decoder, budget) for one in sources]
            left = [source for source, one in zip(sources, found, strict=True) if one is None]
            if left:
                rest = iter(await self._in_threads(left, shape, decoder))
                found = [next(rest) if one is None else one for one in found]
            return found
        return await self._in_threads(sources, shape, decoder)

    async def _in_threads(
        self, sources: Sequence[Source], shape: InputShape, decoder: int
    ) -> list[Tensor | Exception | None]:
        """For each source what `_light` says, in threads."""
        groups: list[list[Source]] = []
        for source in sources:
            if groups and len(groups[-1]) < _TOGETHER and _is_small(source) and _is_small(groups[-1][-1]):
                groups[-1].append(source)
            else:
                groups.append([source])

        def work(group: list[Source]) -> list[Tensor | Exception | None]:
            return [self._light(one, shape, decoder) for one in group]

        loop = asyncio.get_running_loop()
        parts = await asyncio.gather(*(loop.run_in_executor(self._pool, work, group) for group in groups))
        return [one for part in parts for one in part]

    def _light(
        self, source: Source, shape: InputShape, decoder: int, budget: _Budget | None = None
    ) -> Tensor | Exception | None:
        """The image or its error; None for one that is not decoded here, since it may take (too) long."""
        if isinstance(source, ServiceError):
            return source
        if budget is not None and budget.spent:
            return None
        try:
            cost = checked(source, shape, self._limits, decoder)
            if not cost.light or (budget is not None and not budget.takes(cost.seconds)):
                return None
            return as_tensor(checked_pixels(source, shape, self._limits, decoder))
        except ImageError as error:
            return error

    async def _costly(self, source: Source, shape: InputShape, decoder: int, gone: Gone | None) -> Tensor | Exception:
        """The image or its error, decoded in a process that is killed when nobody waits for it any more."""
        left = threading.Event()

        def work() -> Tensor | Exception:
            assert isinstance(source, bytes), "what is no image was not costly"
            try:
                return self._bounded.isolated(source, shape, decoder, left.is_set)
            except ImageError as error:
                return error

        waiting = asyncio.get_running_loop().run_in_executor(self._waiters, work)
        try:
            while not (await asyncio.wait({waiting}, timeout=_LEFT_SECONDS))[0]:
                if gone is not None and await gone():
                    raise ClientDisconnect
            return waiting.result()
        finally:
            left.set()
            waiting.cancel()
