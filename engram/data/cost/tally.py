"""Tally of an encoded image's parts, and of the time and memory that its decoding takes."""

from __future__ import annotations

from dataclasses import dataclass

from engram.config.definition import InputShape
from engram.data.decoders.sizes import check_pixels
from engram.data.image_limits import ImageLimits
from engram.errors import ImageTooCostly

LIGHT_SECONDS = 1.0
LIGHT_MEMORY = 384 * 2**20

PART_SECONDS = 4e-6
"""Of one segment, chunk or block: Pillow reads them in Python."""


@dataclass(frozen=True)
class Cost:
    """Estimate of one decoding."""

    seconds: float
    """Processor time, on a processor of 2020; rather too much than too little."""
    memory: int
    """Bytes at most, the encoded image included."""

    @property
    def light(self) -> bool:
        """Whether the image may be decoded in a thread of the process that also serves others."""
        return self.seconds <= LIGHT_SECONDS and self.memory <= LIGHT_MEMORY


class Tally:
    """Sums up one image, and refuses it as soon as it has more parts than any real image has.

    Parameters
    ----------
    shape
        To which the image is fitted.
    """

    def __init__(self, limits: ImageLimits, shape: InputShape) -> None:
        self.limits = limits
        self.shape = shape
        self.seconds = 0.0
        self.memory = 0
        self._parts = 0
        self._scans = 0

    def part(self, count: int = 1, seconds: float = PART_SECONDS) -> None:
        """Count parts that take so many seconds each; raises ImageTooCostly."""
        self._parts += count
        self.seconds += count * seconds
        if self._parts > self.limits.max_parts:
            raise ImageTooCostly(
                f"the image consists of more than {self.limits.max_parts} segments, chunks, blocks, strips or tiles"
            )

    def scan(self) -> None:
        """Count one pass over a JPEG; raises ImageTooCostly."""
        self._scans += 1
        if self._scans > self.limits.max_scans:
            raise ImageTooCostly(f"the image has more than {self.limits.max_scans} scans")

    def picture(self, width: int, height: int, memory: float, seconds: float) -> None:
        """Add the decoded picture and its fitting to the model's shape; raises ImageTooLarge.

        Parameters
        ----------
        memory
            Bytes for each pixel, of all copies that are held at once.
        seconds
            For each pixel.
        """
        check_pixels((width, height), self.limits.max_pixels)
        # Every row of a picture has a pointer, a padding and a few function calls of its own.
        self.memory += int(height * (width * memory + 64))
        self.seconds += height * (width * seconds + 1e-6)
        if (width, height) != (self.shape.width, self.shape.height):
            # Rows are resized before columns, so there is a picture of the target's width and the source's height.
            self.memory += height * (4 * self.shape.width + 16) + 24 * (width + height)
            self.seconds += (width + height) * 15e-9 + (width + 4 * self.shape.width) * height * 4e-9

    def cost(self) -> Cost:
        """What was summed up; raises ImageTooCostly where that is more memory than allowed."""
        if self.memory > self.limits.max_memory:
            raise ImageTooCostly(
                f"decoding the image takes about {self.memory} bytes of memory; {self.limits.max_memory} are allowed"
            )
        return Cost(self.seconds, self.memory)
