"""Digests of all that saved models answer, to be compared between processes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from engram import Memory
from tests.engram.methods.staged.over_networks import everything, model


def digests(memory: Memory, count: int = 1) -> dict[str, str]:
    """Of probabilities, of a heatmap, and by task of logits in each shape, of `everything`."""
    images = everything(count, memory.definition.input.height)
    heatmap = memory.explain(images[0]).relevance.contiguous().numpy().tobytes()
    found = {"answers": _of(repr(memory.predict(images, top_k=20)).encode()), "heatmap": _of(heatmap)}
    for info in memory.tasks:
        shapes = model(memory).logits_by_shape([info.name], images)[info.name]
        found[info.name] = _of(b"".join(logits.numpy().tobytes() for logits in shapes.values()))
    return found


def _of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(folder: Path) -> dict[str, dict[str, str]]:
    """Digests of each model in a folder."""
    return {path.name: digests(Memory.load(path)) for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    json.dump(main(Path(sys.argv[1])), sys.stdout)
