"""JPEG (ITU-T T.81): its markers, files without their end mark, and kinds that are not read."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from engram.data.decoders.damage import DAMAGE
from engram.data.decoders.layers import Layers, layers
from engram.data.decoders.sizes import check_pixels

GREY_TOLERANCE = 4
"""By how much the channels of a grey picture differ after lossy compression, at most."""

END = b"\xff\xd9"
START_OF_SCAN = 0xDA
RESTART_INTERVAL = 0xDD
QUANTISATION = 0xDB
HUFFMAN_CODES = 0xC4
JFIF = 0xE0
COMMENT = 0xFE
START_OF_FRAME = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
HIERARCHICAL = frozenset({0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF})
LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})
ARITHMETIC = frozenset({0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that ends the data of a scan: stuffed bytes, restarts and fill bytes do not."""

_RESTART = re.compile(rb"\xff[\xd0-\xd7]")

LONGEST_PLAIN = 2**16
"""Bytes of an image that Pillow's reader would hand to its decoder at once."""

_PLAIN_FRAMES = frozenset({0xC0, 0xC2})
"""Baseline and progressive, in Huffman codes."""
_PLAIN_MODES = {1: "L", 3: "RGB"}
"""Pillow's modes by the number of components."""
_PLAIN_LENGTHS = {JFIF: 16, HUFFMAN_CODES: 2, RESTART_INTERVAL: 2, COMMENT: 2}
"""Segments that change no pixel by Pillow's reader, and how long they are at least."""

_TAILS = (b"\x00" * 1024, b"\xff\x00" * 1024, b"\x5a\x93\xc6\x31\xad" * 200, b"\xb4\x2d\x69\x1e\xf0\x00\x87" * 150)
"""Bits that might follow a scan: zeros, ones, and two mixtures."""


@dataclass
class _Frame:
    """What the markers of a JPEG say."""

    kind: int = 0
    """The marker of its frame; 0 where there is none."""
    bits: int = 8
    size: tuple[int, int] = (0, 0)
    """Width and height."""
    components: dict[int, tuple[int, int]] = field(default_factory=dict)
    """How often each component is sampled, across and down."""
    interval: int = 0
    """Units between restarts; 0 where there are none."""
    cut: bool = False
    """Whether a scan has fewer restarts than its units need."""
    missing: dict[int, set[int]] = field(default_factory=dict)
    """Coefficients, by component, that no scan has brought in full yet."""
    scans: int = 0
    ended: bool = False
    """Whether the end mark was found."""

    def start(self, kind: int, content: bytes) -> None:
        """Take in what the header of a frame says."""
        self.kind, self.bits = kind, content[0]
        height, width = struct.unpack_from(">HH", content, 1)
        self.size = width, height
        parts = [content[at : at + 2] for at in range(6, min(6 + 3 * content[5], len(content) - 2), 3)]
        self.components = {part[0]: (max(part[1] >> 4, 1), max(part[1] & 15, 1)) for part in parts}
        self.missing = {component: set(range(64)) for component in self.components}

    def scan(self, content: bytes, restarts: int) -> None:
        """Take in the header of a scan, and how many restarts its data have."""
        self.scans += 1
        count = content[0]
        seen = [one for one in content[1 : 1 + 2 * count : 2] if one in self.components]
        first, last, precision = content[1 + 2 * count : 4 + 2 * count]
        if self.kind not in PROGRESSIVE:
            first, last, precision = 0, 63, 0
        if precision & 0xF == 0:
            for component in seen:
                self.missing[component].difference_update(range(first, last + 1))
        if self.interval and seen and restarts < -(-self._units(seen) // self.interval) - 1:
            self.cut = True

    def _units(self, seen: list[int]) -> int:
        """Units of a scan of these components: blocks of one, groups of blocks of several."""
        widest = [max(sampling[side] for sampling in self.components.values()) for side in (0, 1)]
        own = self.components[seen[0]] if len(seen) == 1 else (1, 1)
        across, down = (-(-self.size[side] * own[side] // (8 * widest[side])) for side in (0, 1))
        return across * down


def _segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Markers and their contents up to the end mark; of scans, the number of restarts in their data."""
    at = 2
    while (found := data.find(b"\xff", at)) >= 0 and found + 1 < len(data):
        marker = data[found + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            # Fill bytes, and markers without content.
            at = found + 1 + (marker != 0xFF)
            continue
        if marker == END[1]:
            yield marker, b"", 0
            return
        length = int.from_bytes(data[found + 2 : found + 4], "big")
        at = found + 2 + length
        if length < 2 or at > len(data):
            return
        content, restarts = data[found + 4 : at], 0
        if marker == START_OF_SCAN:
            after = _AFTER_SCAN.search(data, at)
            end = len(data) if after is None else after.start()
            restarts = sum(1 for _ in _RESTART.finditer(data, at, end))
            at = end
        yield marker, content, restarts


def _frame(data: bytes) -> _Frame:
    found = _Frame()
    for marker, content, restarts in _segments(data):
        if marker in START_OF_FRAME and len(content) >= 6 and not found.kind:
            found.start(marker, content)
        elif marker == RESTART_INTERVAL and len(content) >= 2:
            found.interval = int.from_bytes(content[:2], "big")
        elif marker == START_OF_SCAN and content and len(content) >= 4 + 2 * content[0]:
            found.scan(content, restarts)
        elif marker == END[1]:
            found.ended = True
    return found


def completed(data: bytes) -> bytes | None:
    """An image that lacks nothing but its end mark, with it; None where anything else is wrong.

    The scans are all there when they have brought each coefficient in full, and have as many restarts as they need. The
    last one is whole when no bits that might follow would change the picture.
    """
    frame = _frame(data)
    if frame.ended or frame.cut or not frame.scans or any(frame.missing.values()):
        return None
    # Half an end mark is no part of the scan, nor are zeros that a card or a download was filled up with.
    data = data.removesuffix(b"\xff")
    plain = data[: len(data.rstrip(b"\0")) + 1]
    if _is_whole(plain) or (_is_whole(data) and not (data.endswith(b"\0") and _is_whole(data[:-1]))):
        return data + END
    return None


def _is_whole(data: bytes) -> bool:
    """Whether the picture is the same whatever bits might follow."""
    first = _picture(data + END)
    return first is not None and all(_picture(data + tail + END) == first for tail in _TAILS)


def _picture(data: bytes) -> bytes | None:
    try:
        with JpegImageFile(BytesIO(data)) as image:
            image.load()
            return hashlib.sha256(image.tobytes()).digest()
    except DAMAGE:
        return None


def refusal(data: bytes) -> str | None:
    """Why a JPEG that could not be read is of a kind that is not supported; None where it is damaged."""
    frame = _frame(data)
    if frame.kind and frame.bits != 8:
        return f"JPEG with {frame.bits} bits a channel is not supported; use 8"
    if frame.kind in HIERARCHICAL:
        return "hierarchical JPEG is not supported"
    if frame.kind and len(frame.components) not in (1, 3, 4):
        return f"JPEG of {len(frame.components)} channels is not supported; use 1, 3 or 4"
    if frame.kind in LOSSLESS and frame.ended:
        return "lossless JPEG is not supported"
    if frame.kind in ARITHMETIC and frame.ended:
        return "JPEG with arithmetic coding is not supported"
    return None


def read(data: bytes, max_pixels: int) -> Layers:
    """Colours of a JPEG.

    Raises
    ------
    ImageTooLarge
    Exception
        One of `DAMAGE`.
    """
    if (plain := _plain(data, max_pixels)) is not None:
        return plain
    with JpegImageFile(BytesIO(data)) as image:
        check_pixels(image.size, max_pixels)
        # libjpeg takes whatever follows for the rest of a scan that was cut off.
        if not data.endswith(END) and not _frame(data).ended:
            raise EOFError("no end mark")
        return layers(image, GREY_TOLERANCE)


def _plain(data: bytes, max_pixels: int) -> Layers | None:
    """A small image that says nothing but its pixels, which Pillow's decoder is handed without its reader.

    None for all others, and for what is damaged; raises ImageTooLarge.
    """
    if not 6 <= len(data) <= LONGEST_PLAIN or not data.endswith(END):
        return None
    found, at = None, 2
    while data[at + 1] != START_OF_SCAN:
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        start, at = at + 4, at + 2 + length
        if mark != 0xFF or at + 4 > len(data):
            return None
        if marker in _PLAIN_FRAMES:
            if found is not None or (found := _plain_frame(data[start:at])) is None:
                return None
        elif marker == QUANTISATION:
            if length % 65 != 2 or any(table > 15 for table in data[start:at:65]):  # of 16 bits, or none at all
                return None
        elif length < _PLAIN_LENGTHS.get(marker, LONGEST_PLAIN):
            return None
    if found is None or data[at] != 0xFF or int.from_bytes(data[at + 2 : at + 4], "big") > len(data) - at - 2:
        return None
    mode, size = found
    check_pixels(size, max_pixels)
    try:
        return Layers(Image.frombytes(mode, size, data, "jpeg", mode, ""), tolerance=GREY_TOLERANCE)
    except DAMAGE:
        return None


def _plain_frame(content: bytes) -> tuple[str, tuple[int, int]] | None:
    """Pillow's mode, width and height by the header of a frame; None for what it may not read."""
    if len(content) < 6:
        return None
    bits, height, width, components = struct.unpack_from(">BHHB", content)
    mode = _PLAIN_MODES.get(components)
    if mode is None or bits != 8 or not width * height or len(content) != 6 + 3 * components:
        return None
    return mode, (width, height)
