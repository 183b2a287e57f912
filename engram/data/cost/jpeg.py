"""Cost of a JPEG: segments, scans and blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy

from engram.data.cost.exif import exif
from engram.data.cost.tally import Tally

SOI, EOI, SOS, DHT, DQT, JPG, DAC, TEM, APP1 = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xC8, 0xCC, 0x01, 0xE1
WITHOUT_CONTENT = frozenset({SOI, EOI, TEM, JPG, *range(0xF0, 0xFE)})
"""Markers that Pillow takes for such that nothing belongs to."""
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
ARITHMETIC = frozenset(range(0xC9, 0xD0)) - {DAC}

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""One that is neither a stuffed byte, nor a restart, nor a fill byte."""
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_NEAR = 4096
"""Bytes that are searched in less time than numpy takes to begin."""

ENTROPY_SECONDS = 20e-9
"""Of one byte of Huffman codes."""
BLOCK_SECONDS = 15e-9
"""Of passing by one block of 8 x 8 in one scan, whatever is in it."""
REFINED_SECONDS = 40e-9
"""The same in a scan that refines what earlier ones have brought."""
COEFFICIENT_SECONDS = 60e-9
"""Of one coefficient in arithmetic coding, which may take next to no bytes."""
RESTART_SECONDS = 0.3e-6
"""Of one restart marker, which are counted in Python where a JPEG has no end mark or something behind it."""
TRIALS = 17
"""Decodings of a JPEG without end mark, by which it is found out whether it lacks anything else."""
OUTPUT_SECONDS = 120e-9
"""Of one block's way to pixels."""


@dataclass(frozen=True)
class _Frame:
    kind: int
    width: int
    height: int
    factors: dict[int, int]
    """Blocks in one unit of interleaved components, by component."""
    units: int

    @property
    def blocks(self) -> int:
        return self.units * sum(self.factors.values())


def jpeg(data: bytes, tally: Tally) -> None:
    """Add up a JPEG."""
    frame: _Frame | None = None
    metadata: list[bytes] = []
    joined = 0
    scanned = ended = False
    at = 2
    while True:
        end = at
        if (at := next_marker(data, at)) < 0:
            break
        if not scanned:
            tally.seconds += (at - end) * 0.15e-6  # Pillow passes by what is no marker byte by byte
        kind = data[at + 1]
        at += 2
        if ended := kind == EOI and scanned:
            break
        if kind in WITHOUT_CONTENT:
            tally.part()
            continue
        length = max(2, int.from_bytes(data[at : at + 2], "big"))
        tally.part()
        if kind == SOS:
            scanned = True
            tally.scan()
            if frame is not None:
                tally.seconds += _scan_seconds(frame, data[at : at + length])
        elif 0xC0 <= kind <= 0xCF and kind not in (DHT, JPG, DAC):
            frame = _frame(kind, data[at : at + length]) or frame
        elif kind == DQT:
            tally.seconds += length * 0.06e-6  # Pillow takes the tables apart in Python
        elif kind == APP1 and not scanned and data[at + 2 : at + 8] == b"Exif\0\0":
            metadata.append(data[at + 2 : at + length])
            joined += length
            tally.seconds += joined * 0.6e-9  # each is joined to all before it
        at += length
    tally.seconds += len(data) * ENTROPY_SECONDS + _restarts(data) * RESTART_SECONDS
    tally.memory += 5 * len(data)
    if frame is not None:
        _output(frame, tally)
    if metadata:
        exif(b"".join([metadata[0][6:], *(one[6:] for one in metadata[1:])]), tally)
    if not ended:
        tally.seconds *= TRIALS


def _output(frame: _Frame, tally: Tally) -> None:
    tally.seconds += frame.blocks * OUTPUT_SECONDS
    tally.memory += frame.blocks * 64 * 2  # the coefficients, where there is more than one scan
    tally.picture(frame.width, frame.height, {1: 6.5, 3: 9.5}.get(len(frame.factors), 14), 6e-9)


def _frame(kind: int, segment: bytes) -> _Frame | None:
    if len(segment) < 11:
        return None
    height, width = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big")
    sampling = {segment[at]: (segment[at + 1] >> 4, segment[at + 1] & 15) for at in range(8, len(segment) - 2, 3)}
    across = max((one for one, _ in sampling.values()), default=1) or 1
    down = max((one for _, one in sampling.values()), default=1) or 1
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return _Frame(kind, width, height, {one: max(1, h * v) for one, (h, v) in sampling.items()}, units)


def _scan_seconds(frame: _Frame, segment: bytes) -> float:
    """Seconds of one scan, beside what its bytes take."""
    count = segment[2] if len(segment) > 2 else 0
    named = [frame.factors.get(segment[at], 0) for at in range(3, min(len(segment), 3 + 2 * count), 2)]
    blocks = frame.units * sum(named)
    first, last, bits = segment[3 + 2 * count : 6 + 2 * count] if len(segment) >= 6 + 2 * count else (0, 63, 0)
    if frame.kind in ARITHMETIC:
        return blocks * max(1, min(last, 63) - first + 1) * COEFFICIENT_SECONDS
    return blocks * (REFINED_SECONDS if bits >> 4 and frame.kind in PROGRESSIVE else BLOCK_SECONDS)


def _restarts(data: bytes) -> int:
    if len(data) <= _NEAR:
        return len(_RESTART.findall(data))
    found = 0
    for start in range(0, len(data) - 1, 2**20):
        block = numpy.frombuffer(data, numpy.uint8, min(2**20 + 1, len(data) - start), start)
        found += int(numpy.count_nonzero((block[:-1] == 0xFF) & (block[1:] & 0xF8 == 0xD0)))
    return found


def next_marker(data: bytes, start: int) -> int:
    """Where the next marker begins that is no restart marker; -1 where there is none.

    What is not near is searched by numpy, which is fast whatever the bytes are, and lets other threads run.
    """
    if near := _MARKER.search(data, start, start + _NEAR + 1):
        return near.start()
    start, size = start + _NEAR, _NEAR
    while start < len(data) - 1:
        block = numpy.frombuffer(data, numpy.uint8, min(size, len(data) - start), start)
        first, second = block[:-1], block[1:]
        found = numpy.flatnonzero(
            (first == 0xFF) & (second != 0) & (second != 0xFF) & ((second < 0xD0) | (second > 0xD7))
        )
        if len(found):
            return start + int(found[0])
        start += len(block) - 1
        size = min(2 * size, 2**20)
    return -1
