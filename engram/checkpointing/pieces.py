"""Pieces of a stored model: bytes at hand, or bytes that are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engram.checkpointing.tensors import content_hash


@dataclass(frozen=True)
class Piece:
    """Stored bytes, known by their hash, that are read only when they are needed."""

    content_hash: str
    """As `engram.checkpointing.tensors.content_hash` gives it."""
    read: Callable[[], bytes]
    """Gives the bytes; may raise what the store raises."""


def bytes_of(piece: bytes | Piece) -> bytes:
    """The bytes themselves."""
    return piece.read() if isinstance(piece, Piece) else piece


def hash_of(piece: bytes | Piece) -> str:
    """The content hash, with nothing read."""
    return piece.content_hash if isinstance(piece, Piece) else content_hash(piece)


def read_all(pieces: Iterable[bytes | Piece]) -> list[bytes]:
    """The bytes of all."""
    return [bytes_of(piece) for piece in pieces]
