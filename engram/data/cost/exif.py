"""Cost of a TIFF directory, as TIFF files and EXIF hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from engram.data.cost.tally import LIGHT_SECONDS, Tally

ENTRY_SECONDS = 12e-6
"""Of one entry, which Pillow reads up to three times."""
MOST_LIGHT = 1000
"""Entries beyond which no image is decoded beside others: libtiff writes a line for every one that it does not know."""
SIZES = numpy.array([0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8], numpy.float64)
"""Bytes of one value, by its type."""
SECONDS = numpy.array([0, 0, 0, 0.3, 0.3, 5, 0.3, 0, 0.3, 0.3, 5, 0.3, 0.3, 0.3, 0, 0, 0.3, 0.3, 0.3]) * 1e-6
"""Of one value, by its type; rational ones are objects of Python."""
MEMORY = numpy.array([0, 1, 1, 50, 50, 300, 50, 1, 50, 50, 300, 50, 50, 50, 0, 0, 50, 50, 50], numpy.float64)
"""Bytes of one value once it is read."""
SUB_DIRECTORIES = (34665, 34853, 40965)
"""Tags that lead to further directories: EXIF, GPS, interoperability."""


@dataclass(frozen=True)
class Directory:
    """Tags of a directory: type, number of values, and the place of the values in the file."""

    data: bytes
    order: str
    big: bool
    entries: NDArray[numpy.void]

    def values(self, tag: int) -> tuple[int, ...]:
        """The first few values of a tag, where they are whole numbers; of what is missing, none."""
        return tuple(int(one) for one in self.all_values(tag)[:8])

    def all_values(self, tag: int) -> NDArray[numpy.integer]:
        """The whole numbers of a tag."""
        none = numpy.zeros(0, numpy.uint8)
        found = self.entries[self.entries["tag"] == tag]
        if not len(found):
            return none
        kind = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8"}.get(int(found["type"][0]))
        if kind is None:
            return none
        count, width = int(found["count"][0]), int(kind[1])
        value = found["value"][0].tobytes()
        if count * width > len(value):
            place = int.from_bytes(value, "little" if self.order == "<" else "big")
            count = min(count, max(0, len(self.data) - place) // width)
            return numpy.frombuffer(self.data, self.order + kind, count, place) if count else none
        return numpy.frombuffer(value, self.order + kind, count)

    def count(self, *tags: int) -> int:
        """How many values these tags have."""
        return int(self.entries["count"][numpy.isin(self.entries["tag"], tags)].astype(numpy.float64).sum())


def directory(data: bytes, place: int, order: str, tally: Tally, *, big: bool = False) -> Directory:
    """Read and add up the directory at `place`."""
    wide, cell = ("u8", 8) if big else ("u4", 4)
    kind = numpy.dtype([("tag", order + "u2"), ("type", order + "u2"), ("count", order + wide), ("value", "u1", cell)])
    head = 8 if big else 2
    count = int.from_bytes(data[place : place + head], "little" if order == "<" else "big")
    tally.part(min(count, tally.limits.max_parts + 1), ENTRY_SECONDS)
    if count > MOST_LIGHT:
        tally.seconds += LIGHT_SECONDS
    count = min(count, max(0, len(data) - place - head) // kind.itemsize)
    entries = numpy.frombuffer(data, kind, count, place + head) if count else numpy.zeros(0, kind)
    known = numpy.where(entries["type"] < len(SIZES), entries["type"], 0)
    number = entries["count"].astype(numpy.float64)
    number = numpy.minimum(number, len(data) / numpy.maximum(SIZES[known], 1))
    tally.seconds += float((number * SECONDS[known]).sum())
    tally.memory += int((number * (MEMORY[known] + SIZES[known])).sum())
    return Directory(data, order, big, entries)


def exif(data: bytes, tally: Tally) -> None:
    """Add up EXIF, which begins as a TIFF file does."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return
    main = directory(data, int.from_bytes(data[4:8], "little" if order == "<" else "big"), order, tally)
    sub_directories(main, tally)


def sub_directories(main: Directory, tally: Tally) -> None:
    """Add up the directories that a directory leads to."""
    for tag in SUB_DIRECTORIES:
        for place in main.values(tag)[:1]:
            directory(main.data, place, main.order, tally, big=main.big)
