"""Exceptions that readers of images raise over damaged bytes."""

from __future__ import annotations

import struct
import zlib

DAMAGE = (
    OSError,
    SyntaxError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    NotImplementedError,
    Warning,
    struct.error,
    zlib.error,
)
"""What Pillow's readers are known to raise over bytes that were cut off or tampered with."""
