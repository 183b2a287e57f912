"""Tests of pieces: stored bytes that are read when they are needed, and checked then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engram.checkpointing.pieces import Piece, bytes_of, hash_of
from engram.checkpointing.tensors import content_hash
from engram.errors import DamagedSnapshot
from engram.memory import dump, restore
from engram.snapshot import read, write
from testing.data.patterns import learned


class Shelf:
    """Store of bytes that counts how often they are read."""

    def __init__(self) -> None:
        self.reads: list[str] = []

    def piece(self, data: bytes | Piece) -> Piece:
        name = hash_of(data)

        def give() -> bytes:
            self.reads.append(name)
            return bytes_of(data)

        return Piece(name, give)


def test_the_hash_of_a_piece_is_known_without_reading_it() -> None:
    shelf = Shelf()
    piece = shelf.piece(b"engram")
    assert hash_of(piece) == hash_of(b"engram") == content_hash(b"engram")
    assert shelf.reads == []
    assert bytes_of(piece) == b"engram"
    assert shelf.reads == [hash_of(piece)]


def test_a_model_is_rebuilt_from_pieces_as_from_bytes() -> None:
    parts, shelf = dump(learned("mlp", tasks=2, settings={"reads": "all"})), Shelf()
    engrams, kept = (tuple(map(shelf.piece, pieces)) for pieces in (parts.engrams, parts.kept))
    assert dump(restore(parts.definition, engrams, parts.recogniser, kept, parts.budget)) == parts
    assert shelf.reads == [hash_of(piece) for piece in (*parts.engrams, *parts.kept)], "each is read once"


def test_what_reading_a_piece_raises_is_raised() -> None:
    parts = dump(learned("mlp", tasks=1, settings={"reads": "all"}))

    def gone() -> bytes:
        raise FileNotFoundError("gone")

    pieces = (*parts.engrams[:-1], Piece("0" * 64, gone))
    with pytest.raises(FileNotFoundError, match="gone"):
        restore(parts.definition, pieces, parts.recogniser, None, parts.budget)


def test_the_pieces_of_a_folder_are_read_late_and_checked(tmp_path: Path) -> None:
    memory = learned("mlp", tasks=2)
    written = dump(memory)
    memory.save(tmp_path)
    parts = read(tmp_path)
    assert [*map(hash_of, parts.engrams)] == [*map(hash_of, written.engrams)]
    assert [*map(bytes_of, parts.kept)] == [*written.kept]

    harms: list[tuple[Callable[[Path], object], str]] = [
        (lambda file: file.write_bytes(file.read_bytes()[:-1] + b"?"), "is not what the manifest says"),
        (lambda file: file.unlink(), "No such file"),
    ]
    for harm, message in harms:
        harm(tmp_path / "engram-0002.safetensors")
        with pytest.raises(DamagedSnapshot, match=message):
            bytes_of(parts.engrams[2])


def test_a_folder_is_written_from_pieces_that_lie_in_it(tmp_path: Path) -> None:
    memory = learned("mlp", tasks=2)
    memory.save(tmp_path)
    parts = read(tmp_path)
    swapped = type(parts)(
        parts.definition, (parts.engrams[0], parts.engrams[2], parts.engrams[1]), parts.recogniser, parts.kept, {}
    )
    expected = [*map(bytes_of, swapped.engrams)]
    write(swapped, memory.tasks, tmp_path)
    assert [*map(bytes_of, read(tmp_path).engrams)] == expected
