"""Models as folders of safetensors files, with a manifest from which they are rebuilt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engram.checkpointing.pieces import Piece, bytes_of
from engram.checkpointing.tensors import FORMAT, content_hash
from engram.config.definition import Definition
from engram.errors import DamagedSnapshot, UnsupportedFormat
from engram.nn.capacity import TaskInfo

MANIFEST = "manifest.json"
_RECOGNISER = "recogniser.safetensors"
_SUMS = "sums.safetensors"
"""The one file with the sums of all tasks, in models saved before tasks had sums of their own."""


@dataclass(frozen=True)
class Parts:
    """A model as bytes, in the parts that a vault stores."""

    definition: Definition
    engrams: tuple[bytes | Piece, ...]
    """What answering needs, in the method's order; with `eidetic` the commons first, then one for each task."""
    recogniser: bytes
    kept: tuple[bytes | Piece, ...]
    """Only needed to learn, and the largest part by far; with `eidetic` the sums of each task."""
    budget: dict[str, int]


def write(parts: Parts, tasks: Sequence[TaskInfo], folder: Path) -> None:
    """Write a model's parts and its manifest into a folder, the manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    # All is read before anything is written: pieces may lie in this very folder, under names that others get now.
    engrams = {f"engram-{n:04d}.safetensors": bytes_of(piece) for n, piece in enumerate(parts.engrams)}
    kept = {f"kept-{n:04d}.safetensors": bytes_of(piece) for n, piece in enumerate(parts.kept, 1)}
    files = {**engrams, **kept, _RECOGNISER: parts.recogniser}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = {
        "format": FORMAT,
        "definition": parts.definition.stored(),
        "budget": parts.budget,
        "engrams": list(engrams),
        "kept": list(kept),
        "tasks": [{"task": info.name, "classes": list(info.classes)} for info in tasks],
        "sha256": {name: content_hash(data) for name, data in files.items()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def read(folder: Path) -> Parts:
    """The parts of a model in a folder that `write` wrote, engrams and what is kept as pieces.

    All is checked against the manifest when it is read.

    Raises
    ------
    SnapshotError
        naming the file; pieces raise it, too.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        version, hashes = manifest["format"], dict(manifest["sha256"])
        names, kept_names = _names(manifest["engrams"]), _names(manifest.get("kept", [_SUMS]))
        budget = {str(layer): int(units) for layer, units in manifest["budget"].items()}
        if version != FORMAT:
            raise UnsupportedFormat(f"{MANIFEST} is of format {version}; this version reads format {FORMAT}")
        definition = Definition.load(manifest["definition"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedSnapshot(f"{folder / MANIFEST}: {error}") from error

    def content(name: str) -> bytes:
        try:
            data = (folder / Path(name).name).read_bytes()
        except (OSError, ValueError) as error:
            raise DamagedSnapshot(f"{name!r}: {error}") from error
        if content_hash(data) != hashes.get(name):
            raise DamagedSnapshot(f"{name} is not what the manifest says it is")
        return data

    def piece(name: str) -> Piece:
        return Piece(str(hashes.get(name)), partial(content, name))

    engrams, kept = tuple(map(piece, names)), tuple(map(piece, kept_names))
    return Parts(definition, engrams, content(_RECOGNISER), kept, budget)


def _names(found: object) -> list[str]:
    """Names of files, as a manifest lists them; raises TypeError."""
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError("files are listed by their names")
    return found
