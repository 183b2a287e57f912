"""Messages between a process and the one that decodes for it: a JSON object and bytes, lengths first."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

LENGTHS = struct.Struct(">IQ")
"""Bytes of the JSON object, bytes of what follows it."""
LONGEST_HEAD = 2**16
PATIENCE = 8
"""Times its processor time that an image may take by the clock, since the machine has other things to do."""


def packed(head: dict[str, Any], body: bytes | memoryview = b"") -> tuple[bytes, bytes | memoryview]:
    """A message in two pieces, so that a large body is not copied."""
    text = json.dumps(head).encode()
    return LENGTHS.pack(len(text), len(body)) + text, body


def unpacked(read: Callable[[int], bytes], longest: int) -> tuple[dict[str, Any], bytes]:
    """A message taken from `read`, which returns exactly as many bytes as it is asked for.

    Raises
    ------
    ValueError
        The message is longer than `longest`, or begins with no JSON object.
    """
    head_length, body_length = LENGTHS.unpack(read(LENGTHS.size))
    if head_length > LONGEST_HEAD or body_length > longest:
        raise ValueError("a message that is too long")
    head = json.loads(read(head_length))
    if not isinstance(head, dict):
        raise ValueError("a message that begins with no object")
    return head, read(body_length)
