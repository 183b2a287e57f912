"""Limits on one image: its size, its parts, and what its decoding may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self


class ImageLimitSettings(Protocol):
    """Settings that say how large images may be, and what their decoding may take."""

    @property
    def max_image_pixels(self) -> int: ...

    @property
    def max_image_bytes(self) -> int: ...

    @property
    def max_image_scans(self) -> int: ...

    @property
    def max_image_parts(self) -> int: ...

    @property
    def max_image_seconds(self) -> float: ...

    @property
    def max_image_memory(self) -> int: ...


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the size of one image, on its parts, and on the time and memory of its decoding."""

    max_pixels: int = 50_000_000
    """Height times width, judged by the header before anything is unpacked."""
    max_bytes: int = 64 * 2**20
    """Length of the encoded image."""
    max_scans: int = 500
    """Scans of a JPEG, each of which passes over all pixels; encoders write up to about 15."""
    max_parts: int = 100_000
    """Segments, chunks, blocks, directory entries, strips and tiles that an image may consist of."""
    max_seconds: float = 5.0
    """Processor time that an image may take where it is decoded in a process of its own."""
    max_memory: int = 3 * 2**30
    """Bytes of memory that decoding may take, by an estimate beforehand and in a process of its own."""

    @classmethod
    def of(cls, settings: ImageLimitSettings) -> Self:
        """The limits that `settings` say."""
        return cls(
            max_pixels=settings.max_image_pixels,
            max_bytes=settings.max_image_bytes,
            max_scans=settings.max_image_scans,
            max_parts=settings.max_image_parts,
            max_seconds=settings.max_image_seconds,
            max_memory=settings.max_image_memory,
        )


IMAGE_LIMITS = ImageLimits()
