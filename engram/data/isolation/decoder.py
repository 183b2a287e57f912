"""Decoder of images whose cost is bounded: light ones here, others in processes that can be killed."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from torch import Tensor

from engram.config.definition import InputShape
from engram.data.image_limits import IMAGE_LIMITS, ImageLimits
from engram.data.images import as_tensor, decode
from engram.data.isolation.process import POLL_SECONDS, DecodingProcess
from engram.data.pictures import checked
from engram.errors import Cancelled


class BoundedDecoder:
    """Decoder that gives the same tensors as `engram.data.images.decode`, and bounds what an image may take.

    An image whose cost is estimated as small is decoded here. Any other one is decoded in one of `processes` processes.
    Each is started when first needed, kept, and replaced when an image took more time or memory than `limits` allow.
    Safe to call from many threads; what finds all processes busy waits.

    Parameters
    ----------
    stop
        Asked while an image is waited for; true kills its process and raises Cancelled.
    """

    def __init__(
        self, limits: ImageLimits = IMAGE_LIMITS, processes: int = 1, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self.limits = limits
        self._stop = stop
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decode-start")
        self._all = [DecodingProcess(limits, self._starter) for _ in range(processes)]
        self._free: queue.LifoQueue[DecodingProcess] = queue.LifoQueue()
        for process in self._all:
            self._free.put(process)

    def __call__(self, data: bytes, shape: InputShape, decoder: int | None = None) -> Tensor:
        """Decode one image.

        Raises
        ------
        ImageError
            As `engram.data.images.decode`; ImageTooCostly also where decoding was not over in time.
        Cancelled
            `stop` turned true.
        """
        if checked(data, shape, self.limits, decoder).light:
            return decode(data, shape, self.limits, decoder)
        return self.isolated(data, shape, decoder)

    def isolated(
        self, data: bytes, shape: InputShape, decoder: int | None = None, stop: Callable[[], bool] | None = None
    ) -> Tensor:
        """Decode one image in a process of its own, whatever it costs; raises as calling does."""
        stop = stop or self._stop
        process = self._take(stop)
        try:
            return as_tensor(process.decode(data, shape, shape.decoder if decoder is None else decoder, stop))
        finally:
            self._free.put(process)

    def _take(self, stop: Callable[[], bool]) -> DecodingProcess:
        while True:
            try:
                return self._free.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if stop():
                    raise Cancelled("stopped while an image waited to be decoded") from None

    def close(self) -> None:
        """Kill the processes; no image may be under way."""
        for process in self._all:
            process.close()
        self._starter.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
